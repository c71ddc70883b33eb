"""FluxGenerateBatchOperator: many images in one task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_flux.arguments import parse_flag
from airflow_provider_flux.best_effort import best_effort
from airflow_provider_flux.client.catalogue.prices import format_cost, to_usd
from airflow_provider_flux.exceptions import FluxBadRequestError, FluxError, FluxStoreError
from airflow_provider_flux.identity import task_identity
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.operators.base import FluxBaseOperator

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_flux.batch.definition import Batch
    from airflow_provider_flux.batch.manifest import Manifest
    from airflow_provider_flux.batch.options import BatchOptions
    from airflow_provider_flux.batch.requests import BatchItem
    from airflow_provider_flux.batch.runner import BatchRunner
    from airflow_provider_flux.client.client import FluxClient
    from airflow_provider_flux.storage.base import ImageStore


class FluxGenerateBatchOperator(FluxBaseOperator):
    """Generate many images in one task, and store each as soon as it is ready.

    Runs on the worker as one event loop that keeps up to ``max_active`` jobs in flight. Each image has a receipt
    beside it, so a retry, a clear, or the next attempt after a killed worker submits only what is missing.

    Writes a manifest beside the images, with one JSON line for each image in the given order: ``index`` (of the
    image), ``request`` (the position of its request in the list), ``state`` (``stored``, ``moderated``, ``failed``,
    ``not_submitted``), ``model``, ``prompt``, ``file_name``, ``uri``, ``id``, ``seed``, ``cost``, ``cost_usd``,
    ``error`` and, for a stored image, what FluxGenerateOperator returns. Each run has a manifest of its own;
    ``manifest.jsonl`` is a copy of the newest one.

    Returns ``manifest`` (the URI of the run's own manifest), ``manifest_sha256`` (in hex), ``counts`` (``requested``,
    ``stored``, ``reused``, ``moderated``, ``failed``, ``not_submitted``), ``cost`` (credits billed for this run; a job
    whose finished image is withheld by moderation counts, since it may be billed), ``cost_usd`` and ``task_instance``.

    If some requests fail, the task fails at the end: what succeeded is kept, and the result is pushed first. An error
    that every request would meet (an invalid key, an account without credits) stops submitting at once.

    :param requests: List of prompts, or of dicts of a request's fields, which may also contain ``model``,
        ``parameters`` and ``file_name`` (in the folder ``output_uri``; default: derived from the recipe). A string is
        a prompt, even if it is JSON; a ``prompt`` that is a dict or a list is sent as JSON text. A ``file_name``
        without the extension of an image format gets the one of its format. ``seeds`` (``[1, 2, 3]``) asks for one
        image per seed, ``variants`` (4) for that many with different seeds: ``seed`` and the following, or seeds that
        are derived from the recipe, so that a retry finds them again. Their file names end in the seed
        (``hero-3.png``).
    :param output_uri: Folder for the images: ``s3://bucket/folder/``, ``file:///folder/``, or any other URI that
        ObjectStoragePath opens.
    :param model: Model of the requests that name none.
    :param parameters: Fields shared by all requests, ``seeds`` or ``variants`` too; a request's own fields take
        precedence.
    :param max_active: Maximum number of jobs in flight; lowered while the account has no capacity (HTTP 429). The API
        allows 24 per account, and 6 for ``flux-kontext-max``.
    :param max_failures: Number of failed requests to tolerate; one more, and submitting stops (0: at the first
        failure). Default: no limit.
    :param max_cost: Maximum credits for this run, across all its attempts. Each image is expected to cost its published
        price, corrected by the API's estimate and by the cost of finished jobs; jobs in flight that cost more than
        expected can exceed the maximum. If a price is unknown, the first image of its model and size is submitted
        alone and the others wait for its cost; if the API reports none, only that one is submitted. Default: no limit.
    :param on_max_cost: What to do if requests are not submitted because of ``max_cost`` or a budget: ``"fail"``, or
        ``"stop"``: the task succeeds with the images it has, unless other requests failed.
    :param timeout: Seconds after its submit at which waiting for an image ends; also how long to wait for capacity
        while no job is accepted and none finishes.
    :param poll_interval: Seconds between polls; default: derived from how long such jobs usually take.
    :param max_bytes: Largest image to accept, in bytes.
    :param strict: Whether to reject unknown models and parameters instead of sending them with a warning.
    :param reuse: As in FluxGenerateOperator: ``"run"``, ``"always"``, ``"never"``.
    :param on_orphan: As in FluxGenerateOperator: ``"resubmit"``, ``"fail"``.
    :param on_expired: As in FluxGenerateOperator: ``"fail"``, ``"resubmit"``.
    :param on_moderated: Whether a moderated request fails the task (``"fail"``) or is only counted (``"skip"``).
    :param moderation_retries: As in FluxGenerateOperator, for each image without ``seed``, ``seeds`` or ``variants``;
        ``max_cost`` counts every job.
    :param replace: Whether to replace images of another run, or any other objects, with the same names; a warning
        names each of them. If False, such requests fail before they are submitted.
    :param budget: What may be spent over all runs that share the budget, in addition to the connection's:
        ``"5000/month"`` (credits) or ``"$50/week"``, whose ledger is at the connection's ``budget_uri``; or a dict with
        ``limit``, ``uri`` (such as ``"s3://bucket/flux-budget"``) and ``unknown_price`` (credits to reserve for a job
        whose price is unknown; default: refuse it). Submitting stops before it is exceeded; see ``on_max_cost``.
    :param plan_only: Whether to return only what the batch would do: submits nothing and writes no manifest. The result
        has ``counts`` (``requested``, ``new``, ``reused``, ``refused``), ``refused`` (``request``, its position in the
        list, and ``reason``), ``estimated_cost`` (credits, by the published prices), ``estimated_cost_usd``,
        ``unknown_prices`` (number of new images that the estimate leaves out) and ``exceeds_max_cost``. Invalid
        requests are listed instead of failing the task.
    :param aws_conn_id: Connection of the amazon provider, for ``s3://``.
    :param flux_conn_id: Connection of the FLUX API.
    :raises FluxBadRequestError: before anything is billed, listing everything that is invalid in the requests.
    :raises FluxBatchError: at the end, if images are missing.
    """

    template_fields: Sequence[str] = (
        "requests",
        "output_uri",
        "model",
        "parameters",
        "max_active",
        "max_failures",
        "max_cost",
        "on_max_cost",
        "timeout",
        "poll_interval",
        "max_bytes",
        "reuse",
        "on_orphan",
        "on_expired",
        "on_moderated",
        "moderation_retries",
        "budget",
        "plan_only",
        "aws_conn_id",
        "flux_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"requests": "json", "parameters": "json"}

    def __init__(
        self,
        *,
        requests: list[str | dict[str, Any]] | str | XComArg,
        output_uri: str,
        model: str | None = None,
        parameters: dict[str, Any] | None = None,
        max_active: int | str = 24,
        max_failures: int | str | None = None,
        max_cost: float | str | None = None,
        on_max_cost: str = "fail",
        timeout: float | str | timedelta = 600,
        poll_interval: float | str | timedelta | None = None,
        max_bytes: int | str = MAX_BYTES,
        strict: bool = False,
        reuse: str = "run",
        on_orphan: str = "resubmit",
        on_expired: str = "fail",
        on_moderated: str = "fail",
        moderation_retries: int | str = 0,
        replace: bool = True,
        budget: str | dict[str, Any] | None = None,
        plan_only: bool | str = False,
        aws_conn_id: str | None = "aws_default",
        flux_conn_id: str = "flux_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.requests = requests
        self.output_uri = output_uri
        self.model = model
        self.parameters = parameters
        self.max_active = max_active
        self.max_failures = max_failures
        self.max_cost = max_cost
        self.on_max_cost = on_max_cost
        self.timeout = timeout
        self.poll_interval = poll_interval
        self.max_bytes = max_bytes
        self.strict = strict
        self.reuse = reuse
        self.on_orphan = on_orphan
        self.on_expired = on_expired
        self.on_moderated = on_moderated
        self.moderation_retries = moderation_retries
        self.replace = replace
        self.budget = budget
        self.plan_only = plan_only
        self.aws_conn_id = aws_conn_id
        self.flux_conn_id = flux_conn_id
        self._runner: BatchRunner | None = None

    def execute(self, context: Context) -> dict[str, Any]:
        """Check all requests, bring each to its end, write the manifest."""
        from airflow_provider_flux.batch.runner import BatchRunner

        self._runner = None
        self._destination = str(self.output_uri or "").strip() or None
        with self._errors(context):
            if parse_flag("plan_only", self.plan_only):
                return self._plan(context)
            batch, manifest = self._prepare(context)
            self._runner = BatchRunner(batch)
            result = self._run_and_write(self._runner, manifest, context)
            self._check_complete(self._runner, result, context)
            self._announce_batch(manifest, result, context)
            return result

    def on_kill(self) -> None:
        """Log what happens to the jobs in flight, which the API cannot cancel."""
        jobs = ", ".join(self._runner.in_flight if self._runner is not None else ())
        if not jobs:
            return
        if self._is_running:
            self.log.info(
                "This process received a termination signal while jobs %s are running, and continues. The API cannot "
                "cancel jobs: if the process is killed, they are billed if they finish, and the next attempt resumes "
                "them.",
                jobs,
            )
        else:
            self.log.warning(
                "Jobs %s are still running: the API cannot cancel jobs, and they are billed if they finish. The next "
                "attempt resumes them.",
                jobs,
            )

    def _plan(self, context: Context) -> dict[str, Any]:
        """Return what the batch would do; submits nothing and writes no manifest."""
        from airflow_provider_flux.batch.definition import Batch
        from airflow_provider_flux.batch.plan import plan_batch
        from airflow_provider_flux.batch.requests import check_requests

        self._check_templates()
        options, folder = self._options(), self._folder()
        items, problems = check_requests(self.requests, self.model, *self._shared(), folder, self.strict)
        folder.check()
        plan = plan_batch(Batch(items, self._hook, folder, task_identity(context), options), problems)
        self.log.info("The plan is: %s. Nothing is submitted.", plan)
        for problem in plan.refused:
            self.log.warning("request %d would be refused: %s", problem.request_index, problem.message)
        return plan.to_dict()

    def _prepare(self, context: Context) -> tuple[Batch, Manifest]:
        """Return the batch and the place of its manifest, checked as far as possible before anything is billed."""
        from airflow_provider_flux.batch.definition import Batch
        from airflow_provider_flux.batch.manifest import Manifest

        self._check_templates()
        options, folder = self._options(), self._folder()
        items = self._items(folder)
        folder.check()
        run = task_identity(context)
        return Batch(items, self._hook, folder, run, options), Manifest.in_folder(folder, run)

    def _options(self) -> BatchOptions:
        from airflow_provider_flux.batch.options import BatchOptions, read_options

        self._hook.check_budget()
        return read_options({option.name: getattr(self, option.name) for option in fields(BatchOptions)})

    def _folder(self) -> ImageStore:
        """Return a place in the folder of the images."""
        from airflow_provider_flux.batch.manifest import LATEST_MANIFEST
        from airflow_provider_flux.storage import open_store

        folder = str(self.output_uri or "").strip()
        if not folder:
            raise FluxBadRequestError("output_uri is empty; it must be a folder such as s3://bucket/folder/.")
        return open_store(f"{folder.rstrip('/')}/{LATEST_MANIFEST}", self.aws_conn_id)

    def _items(self, folder: ImageStore) -> list[BatchItem]:
        from airflow_provider_flux.batch.requests import read_requests

        return read_requests(self.requests, self.model, *self._shared(), folder, self.strict)

    def _shared(self) -> tuple[dict[str, Any], FluxClient]:
        """Return what all requests share: the fields, and the client."""
        return self._own_parameters(), self._hook.get_conn()

    def _run_and_write(self, runner: BatchRunner, manifest: Manifest, context: Context) -> dict[str, Any]:
        """Run the batch and return the result; write the manifest even if the task is interrupted."""
        from airflow_provider_flux.execution.interrupts import run_interruptible

        try:
            run_interruptible(runner.run())
        except BaseException:
            result = self._write(runner, manifest, context)
            with best_effort("push the result of the images that are stored"):
                self._push(result, context)
            raise
        return self._write(runner, manifest, context)

    def _write(self, runner: BatchRunner, manifest: Manifest, context: Context) -> dict[str, Any]:
        """Write the manifest, log the totals, and return the result."""
        from airflow_provider_flux.batch.manifest import counts_text

        sha256 = manifest.write(runner.outcomes)
        self._image_uris = [outcome.uri for outcome in runner.outcomes if outcome.uri]
        uri, counts, cost = manifest.own.uri, runner.counts, round(runner.cost, 6)
        self.log.info("%s; %s billed; see %s.", counts_text(counts), format_cost(cost), uri)
        totals = {"counts": counts, "cost": cost, "cost_usd": to_usd(cost)}
        return self._result(context, {"manifest": uri, "manifest_sha256": sha256, **totals})

    @staticmethod
    def _push(result: dict[str, Any], context: Context) -> None:
        """Push the result of a task that fails, for downstream tasks with trigger_rule="all_done" and the gallery."""
        if result["manifest_sha256"] is not None:
            context["ti"].xcom_push(key="return_value", value=result)

    def _check_complete(self, runner: BatchRunner, result: dict[str, Any], context: Context) -> None:
        """Fail the task if images or the manifest are missing.

        :raises FluxBatchError: saying how many images are missing, and why.
        :raises FluxStoreError: if only the manifest could not be written.
        """
        is_written = result["manifest_sha256"] is not None
        see = f"see {result['manifest']}" if is_written else f"but {result['manifest']} could not be written"
        billed = f"This run was billed {format_cost(runner.cost)}, as far as the API reported"
        billing = f"{billed}; what succeeded is stored, {see}."
        error: FluxError | None = runner.policy.task_error(result["counts"], billing)
        if error is None and not is_written:
            error = FluxStoreError("The manifest could not be written; the log shows the cause.", billing=billing)
        if error is None:
            return
        self._push(result, context)
        raise error

    def _announce_batch(self, manifest: Manifest, result: dict[str, Any], context: Context) -> None:
        # Consumers are scheduled on the latest manifest, whose URI is the same in every run.
        uri, counts = manifest.latest.uri, result["counts"]
        shared = {name: result[name] for name in ("manifest", "cost", "cost_usd")}
        extra = {"uri": uri, **shared, **counts}
        self._announce(context, self._image_uris, uri if counts["stored"] else None, extra)

    @property
    def _requested_model(self) -> str | None:
        return self.model

    def _handle_error(self, error: FluxError) -> None:
        # Once a batch has begun, its images are counted one by one.
        if self._runner is None or not self._runner.outcomes:
            super()._handle_error(error)

    def _retry_sentence(self, error: FluxError) -> str:
        if not error.retryable:
            return ""
        if self._runner is not None:
            return "A retry submits only what is missing."
        return "A retry starts over."
