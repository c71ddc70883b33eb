"""FluxGenerateOperator: one prompt becomes one image."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_flux import metrics
from airflow_provider_flux.arguments import bytes_or_default, parse_bytes, parse_count, parse_seconds
from airflow_provider_flux.client.catalogue.prices import format_cost
from airflow_provider_flux.exceptions import (
    FluxBadRequestError,
    FluxContentModeratedError,
    FluxError,
    FluxModeratedError,
    FluxRateLimitError,
)
from airflow_provider_flux.execution.capacity import CapacityWait, defer_until_capacity
from airflow_provider_flux.execution.deferral import (
    DEFAULT_DEFER_AFTER,
    WaitOptions,
    log_stored,
    resumed_timeout,
    wait_or_defer,
)
from airflow_provider_flux.failures import abandoned_job_message, retry_sentence
from airflow_provider_flux.identity import TaskIdentity, task_identity
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.operators.base import FluxBaseOperator
from airflow_provider_flux.receipts.lifecycle import failure_recorded, mark_ready
from airflow_provider_flux.receipts.moderation import check_resubmit
from airflow_provider_flux.receipts.recipe import image_name
from airflow_provider_flux.receipts.submission import Submission, check_policies
from airflow_provider_flux.results import ImageResult

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_flux.client.jobs import Job
    from airflow_provider_flux.client.responses import Result
    from airflow_provider_flux.images.inputs import InputImages
    from airflow_provider_flux.receipts.receipt import Receipt
    from airflow_provider_flux.receipts.stores import ReceiptStore
    from airflow_provider_flux.storage import ImageStore

REQUEST_FIELDS = (
    "prompt",
    "image_prompt",
    "width",
    "height",
    "steps",
    "prompt_upsampling",
    "seed",
    "guidance",
    "safety_tolerance",
    "interval",
    "output_format",
    "webhook_url",
    "webhook_secret",
)


class FluxGenerateOperator(FluxBaseOperator):
    """Generate one image with a FLUX model, and store it at ``output_uri``.

    Submits a paid job on the worker, waits for it shortly there and then in the triggerer, and returns a plain dict:
    ``id``, ``model``, ``status``, ``seed``, ``cost`` (credits that this run pays, in any of its attempts),
    ``cost_usd``, ``duration`` (seconds), ``submitted_at`` (UTC in ISO 8601) and, with an ``output_uri``, ``uri``,
    ``width``, ``height``, ``format``, ``content_type``, ``bytes``, ``sha256`` and ``content_credentials`` (whether C2PA
    metadata is in the file, which is stored unchanged). A reused image, which was paid for before, also has ``reused``
    (true) and ``paid_by`` (``dag_id``, ``task_id``, ``run_id``, ``map_index``). After ``moderation_retries``,
    ``moderated`` has the ids of the moderated jobs, which may be billed and are part of ``cost``. ``task_instance``
    (the same four) says which task returned the result, for ``image_url``. The result never contains the signed URL,
    which expires after ten minutes, or the prompt, which is in the receipt.

    The request's fields are those of https://apidoc.cometapi.com/api/image/flux/flux-generate-image; which of
    them a model supports differs, see https://docs.bfl.ml. Rendered text is converted to the field's type; a field
    that is None is not sent. A template that renders to nothing fails the task before anything is billed. So does an
    empty prompt or input image, since the request without it generates another image.

    :param model: Model, such as ``"flux-pro-1.1"`` or ``"flux-2-pro"``.
    :param prompt: What the image should show; a dict or a list is sent as JSON text.
    :param image_prompt: Reference image. As every input image (``input_image``, ``image``, ``mask``,
        ``control_image``, ``images``, ... in ``parameters``) it may be a URL, a ``data:`` URI, base64, a URI that
        the worker reads (``s3://bucket/key.png``, ``file:///folder/x.png``), or what an earlier
        FluxGenerateOperator returned. It is checked, and sent in the encoding that the gateway accepts.
    :param width: Pixels.
    :param height: Pixels.
    :param steps: Diffusion steps.
    :param prompt_upsampling: Let the API enhance the prompt.
    :param seed: Seed of a reproducible image; default: random; returned in the result.
    :param guidance: How closely the image follows the prompt.
    :param safety_tolerance: 0 (strict) to 6 (lenient); some models end at 5 or 4.
    :param interval: Diversity of the image, for ``flux-pro``.
    :param output_format: ``"jpeg"``, ``"png"`` or, with newer models, ``"webp"``.
    :param webhook_url: URL that the API calls when the job ends. The operator still polls.
    :param webhook_secret: Secret for that call.
    :param parameters: Any other field of the request.
    :param strict: Whether to reject unknown models and parameters instead of sending them with a warning.
    :param output_uri: Where to store the image: ``s3://bucket/key.png``, ``file:///folder/x.png``, or any other
        URI that ObjectStoragePath opens. One that ends in ``/`` gets a file name derived from task id, map index
        and recipe. Default: the image is not stored.
    :param replace: Whether to replace another run's image, or any other object, at ``output_uri``; a warning names
        it. If False, the task fails before anything is billed.
    :param aws_conn_id: Connection of the amazon provider, for ``s3://``.
    :param flux_conn_id: Connection of the FLUX API.
    :param wait_for_completion: Whether to wait for the image; if False, the submitted job is returned.
    :param deferrable: Whether to wait in the triggerer, so that no worker is occupied.
    :param defer_after: Seconds to wait on the worker before deferring.
    :param timeout: Seconds after the submit at which waiting ends; ``execution_timeout`` ends it sooner. Waiting for
        capacity at the API (HTTP 429) before the submit, in the triggerer too, ends after the same time.
    :param poll_interval: Seconds between polls; default: estimated from how long such jobs take.
    :param max_bytes: Largest accepted image, in bytes.
    :param reuse: When to reuse an image or job that is already paid for, if its recipe (model and parameters) is
        the same. ``"run"``: within the same DAG run, so that a retry or a clear is not billed again;
        ``"always"``: across runs and backfills too, where the image is stored at ``output_uri``; ``"never"``.
    :param on_orphan: If an earlier attempt started a submit and saved no job id: ``"resubmit"`` (possibly
        paying twice; logged, and counted in the receipt) or ``"fail"``.
    :param on_expired: If a paid image's URL expired before the image was stored: ``"fail"``, or ``"resubmit"``, which
        lets a retry pay for it again with the same seed.
    :param on_moderated: ``"fail"`` (without retry) or ``"skip"`` the task.
    :param moderation_retries: Number of further jobs, each with another seed, to submit if output moderation withholds
        the image ("Content Moderated") and no ``seed`` is given. Each moderated job may be billed. A refused prompt
        ("Request Moderated") is never submitted again. Needs a receipt, which counts across all attempts: an
        ``output_uri``, or Airflow 3.3 or newer.
    :param budget: What may be spent over all runs that share the budget, in addition to the connection's:
        ``"5000/month"`` (credits) or ``"$50/week"``, whose ledger is at the connection's ``budget_uri``; or a dict with
        ``limit``, ``uri`` (such as ``"s3://bucket/flux-budget"``) and ``unknown_price`` (credits to reserve for a job
        whose price is unknown; default: refuse it). A submit that could exceed it raises FluxBudgetReachedError.
    :raises FluxError: the class says what happened (``airflow_provider_flux.exceptions``). One that a retry
        cannot fix is an ``AirflowFailException`` too.
    """

    template_fields: Sequence[str] = (
        "model",
        *REQUEST_FIELDS,
        "parameters",
        "output_uri",
        "aws_conn_id",
        "flux_conn_id",
        "defer_after",
        "timeout",
        "poll_interval",
        "max_bytes",
        "reuse",
        "on_orphan",
        "on_expired",
        "on_moderated",
        "moderation_retries",
        "budget",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"prompt": "text", "parameters": "json"}

    def __init__(
        self,
        *,
        model: str,
        prompt: str | dict[str, Any] | list[Any] | None = None,
        image_prompt: str | dict[str, Any] | XComArg | None = None,
        width: int | str | None = None,
        height: int | str | None = None,
        steps: int | str | None = None,
        prompt_upsampling: bool | str | None = None,
        seed: int | str | None = None,
        guidance: float | str | None = None,
        safety_tolerance: int | str | None = None,
        interval: float | str | None = None,
        output_format: str | None = None,
        webhook_url: str | None = None,
        webhook_secret: str | None = None,
        parameters: dict[str, Any] | None = None,
        strict: bool = False,
        output_uri: str | None = None,
        replace: bool = True,
        aws_conn_id: str | None = "aws_default",
        flux_conn_id: str = "flux_default",
        wait_for_completion: bool = True,
        deferrable: bool = True,
        defer_after: float | str | timedelta = DEFAULT_DEFER_AFTER,
        timeout: float | str | timedelta = 600,
        poll_interval: float | str | timedelta | None = None,
        max_bytes: int | str = MAX_BYTES,
        reuse: str = "run",
        on_orphan: str = "resubmit",
        on_expired: str = "fail",
        on_moderated: str = "fail",
        moderation_retries: int | str = 0,
        budget: str | dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.model = model
        self.prompt = prompt
        self.image_prompt = image_prompt
        self.width = width
        self.height = height
        self.steps = steps
        self.prompt_upsampling = prompt_upsampling
        self.seed = seed
        self.guidance = guidance
        self.safety_tolerance = safety_tolerance
        self.interval = interval
        self.output_format = output_format
        self.webhook_url = webhook_url
        self.webhook_secret = webhook_secret
        self.parameters = parameters
        self.strict = strict
        self.output_uri = output_uri
        self.replace = replace
        self.aws_conn_id = aws_conn_id
        self.flux_conn_id = flux_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        # Each may be a template, and is a number only once the task runs.
        self.defer_after: Any = defer_after
        self.timeout: Any = timeout
        self.poll_interval: Any = poll_interval
        self.max_bytes: Any = max_bytes
        self.reuse = reuse
        self.on_orphan = on_orphan
        self.on_expired = on_expired
        self.on_moderated = on_moderated
        self.moderation_retries = moderation_retries
        self.budget = budget
        self._is_submitting = False
        self._has_receipt = True

    @property
    def webhook_secret(self) -> str | None:
        """The secret; masked in every log as soon as it is known."""
        return self._webhook_secret

    @webhook_secret.setter
    def webhook_secret(self, value: str | None) -> None:
        # Before Airflow 3.2, DEBUG logs show rendered fields in clear; a template is rendered into this setter.
        if isinstance(value, str) and value and "{{" not in value:
            from airflow.sdk.log import mask_secret

            mask_secret(value)
        self._webhook_secret = value

    def execute(self, context: Context) -> dict[str, Any]:
        """Find the job of an earlier attempt or submit one, wait for it, store its image."""
        return self._submit_and_wait(context, CapacityWait())

    def execute_queued(
        self, context: Context, event: Any = None, *, deadline: float | None = None, refusals: int = 0
    ) -> dict[str, Any]:
        """Submit again, after waiting in the triggerer for capacity at the API."""
        waited = CapacityWait.from_event(event) if deadline is None else CapacityWait(deadline, refusals)
        return self._submit_and_wait(context, waited)

    def execute_complete(
        self,
        context: Context,
        event: dict[str, Any] | None = None,
        *,
        paid_by: dict[str, Any] | None = None,
        unused_cost: float = 0.0,
        moderated: Sequence[str] = (),
    ) -> dict[str, Any]:
        """Resume after the triggerer has waited for the job."""
        with self._errors(context):
            state = {"paid_by": paid_by, "unused_cost": unused_cost, "moderated": moderated}
            attempt = self._resume(context, event, state)
            self._unused_cost = attempt.unused_cost
            try:
                with failure_recorded(attempt.receipts, self.on_expired):
                    waited = self._read_event(event)
                    self._job = waited.job
                    if waited.image is not None:
                        self._hook.settle(waited.job, waited.image.cost)
                        return self._finish_stored(waited.image, attempt)
                    result = self._hook.wait(waited.job, resumed_timeout(waited), settle=False)
                return self._store(result, attempt)
            except FluxContentModeratedError as error:
                self._check_resubmit(error, attempt)
        return self._submit_and_wait(context, CapacityWait())

    def on_kill(self) -> None:
        """Log what happens to the job, which the API cannot cancel.

        Airflow calls it at the end of an execution_timeout, and on SIGTERM, after which the task may well continue.
        """
        if self._job is not None:
            message = abandoned_job_message(self._job.id, self._has_receipt, self._is_running)
            self.log.log(logging.INFO if self._is_running else logging.WARNING, message)
        elif self._is_submitting:
            self.log.warning(
                "The task was asked to end during a submit. If it ends here, a job may have been accepted and billed; "
                "the next attempt follows on_orphan=%r.",
                self.on_orphan,
            )

    def _submit_and_wait(self, context: Context, waited: CapacityWait) -> dict[str, Any]:
        with self._errors(context):
            self._check_templates()
            options = self._options()
            request, images = self._request()
            attempt = self._begin(context, self._uri(request, context))
            if attempt.store is not None:
                attempt.store.check()
            submission = self._submission(request, images, attempt)
            while True:
                receipt = self._submit(submission, options, waited)
                attempt = attempt.of(receipt)
                self._unused_cost = attempt.unused_cost
                if receipt.state == "stored" and receipt.image is not None:
                    if attempt.paid_by is None:
                        # The attempt that stored it may have ended before it recorded the cost.
                        self._hook.settle(receipt.paid_job, receipt.image.cost)
                    return self._finish_already_stored(receipt.image, attempt)
                self._job = job = receipt.paid_job
                if not self.wait_for_completion:
                    return self._finish_unawaited(job, attempt)
                try:
                    return self._store(self._wait(job, options, attempt), attempt)
                except FluxContentModeratedError as error:
                    self._check_resubmit(error, attempt)

    def _check_resubmit(self, error: FluxContentModeratedError, attempt: _Attempt) -> None:
        """Check that another job may be submitted after output moderation; raises ``error`` if none may."""
        if self._job is not None:
            self._hook.settle(self._job, error=error)
        retries = parse_count("moderation_retries", self.moderation_retries)
        check_resubmit(attempt.receipts, error, attempt.run, retries)
        self._job = None

    def _options(self) -> WaitOptions:
        """Return how to wait, and check the policies; raises before anything is billed."""
        check_policies(
            reuse=self.reuse,
            on_orphan=self.on_orphan,
            on_expired=self.on_expired,
            on_moderated=self.on_moderated,
        )
        if self.reuse == "always" and not self.output_uri:
            raise FluxBadRequestError("reuse='always' needs an output_uri, where the image can be found again.")
        parse_count("moderation_retries", self.moderation_retries)
        self._hook.check_budget()
        poll_interval = None
        if self.poll_interval is not None:
            poll_interval = parse_seconds("poll_interval", self.poll_interval, minimum=0.1)
        return WaitOptions(
            timeout=parse_seconds("timeout", self.timeout),
            deferrable=self.deferrable,
            defer_after=parse_seconds("defer_after", self.defer_after, minimum=0.0),
            poll_interval=poll_interval,
            max_bytes=parse_bytes("max_bytes", self.max_bytes),
        )

    def _request(self) -> tuple[dict[str, Any], InputImages]:
        """Return the request's fields as the API accepts them, and its images; raises before anything is billed."""
        # Imported late, so that a DAG file does not load the catalogue.
        from airflow_provider_flux.client.catalogue.models import check_model
        from airflow_provider_flux.client.catalogue.validation import blank_content_problems, build_request
        from airflow_provider_flux.images.inputs import InputImages

        fields = {name: getattr(self, name) for name in REQUEST_FIELDS}
        given = {name: value for name, value in fields.items() if value is not None or self._is_mapped_image(name)}
        parameters = self._own_parameters()
        if twice := sorted(given.keys() & parameters.keys()):
            raise FluxBadRequestError(f"Given twice, as an argument and in parameters: {', '.join(twice)}.")
        images = InputImages(check_model(self.model), self._hook.get_conn(), self.aws_conn_id)
        fields = {**parameters, **given}
        request, problems = images.tokenize(fields)
        problems = [*blank_content_problems(fields), *problems]
        return build_request(self.model, request, self._hook.endpoint.gateway, self.strict, problems), images

    def _is_mapped_image(self, name: str) -> bool:
        """Return whether the image is made from a mapped argument, so that its None is not a default."""
        return name in ("prompt", "image_prompt") and self._comes_mapped and name in self._given

    def _uri(self, request: dict[str, Any], context: Context) -> str | None:
        uri = str(self.output_uri or "").strip()
        if uri.endswith("/"):
            uri += image_name(self.task_id, context["ti"].map_index, self.model, request)
        return uri or None

    def _uri_without_recipe(self) -> str | None:
        uri = str(self.output_uri or "").strip()
        return None if uri.endswith("/") else uri or None

    def _begin(self, context: Context, uri: str | None) -> _Attempt:
        """Open the stores of the image and of its receipt.

        :param uri: Where the image is to be stored; None: nowhere.
        """
        from airflow_provider_flux.receipts.stores import NullReceiptStore, open_receipt_store
        from airflow_provider_flux.storage import open_store

        store = None if uri is None else open_store(uri, self.aws_conn_id)
        receipts = open_receipt_store(store, context.get("task_state_store"))
        self._destination = None if store is None else store.uri
        self._has_receipt = self.reuse != "never" and not isinstance(receipts, NullReceiptStore)
        return _Attempt(context, task_identity(context), store, receipts)

    def _resume(self, context: Context, event: Any, state: dict[str, Any]) -> _Attempt:
        """Return the attempt that was deferred.

        :param state: What it passed on to itself; earlier versions passed it on in the event.
        """
        earlier = {} if not isinstance(event, dict) else event
        # An event of another version may not name the destination; templates may render differently now.
        uri = earlier["uri"] if isinstance(earlier.get("uri"), str) else self._uri_without_recipe()
        unused_cost = state["unused_cost"] or earlier.get("unused_cost")
        return replace(
            self._begin(context, uri),
            paid_by=TaskIdentity.from_dict(state["paid_by"] or earlier.get("paid_by")),
            unused_cost=unused_cost if isinstance(unused_cost, (int, float)) else 0.0,
            moderated=tuple(state["moderated"]),
        )

    def _submission(self, request: dict[str, Any], images: InputImages, attempt: _Attempt) -> Submission:
        from airflow_provider_flux.receipts.stores import NullReceiptStore

        retries = parse_count("moderation_retries", self.moderation_retries)
        if retries and isinstance(attempt.receipts, NullReceiptStore):
            raise FluxBadRequestError(
                "moderation_retries needs a receipt, which counts the jobs: set output_uri, or use Airflow 3.3 or "
                "newer."
            )
        if not self._has_receipt and self.reuse != "never":
            self.log.warning(
                "No receipt can be saved: set output_uri, or use Airflow 3.3 or newer. Without one, a retry submits "
                "(and pays for) a new job."
            )
        return Submission(
            self.model,
            request,
            images,
            attempt.run,
            attempt.receipts,
            attempt.store,
            self.reuse,
            self.on_orphan,
            self.on_expired,
            self.replace,
            wait_for_capacity=not self.deferrable,
        )

    def _submit(self, submission: Submission, options: WaitOptions, waited: CapacityWait) -> Receipt:
        """Return the receipt of an existing job or of a new one; defers while the account has no capacity."""
        self._is_submitting = True
        try:
            receipt = submission.get_or_submit(self._hook)
        except FluxRateLimitError as error:
            if self.deferrable:
                defer_until_capacity(self, error, waited, options)
            raise
        self._is_submitting = False
        return receipt

    def _wait(self, job: Job, options: WaitOptions, attempt: _Attempt) -> Result:
        """Return the finished job's result; defers if it takes longer than ``defer_after``."""
        uri = None if attempt.store is None else attempt.store.uri
        with failure_recorded(attempt.receipts, self.on_expired):
            return wait_or_defer(
                self,
                self._hook,
                job,
                options,
                options.deadline(self, job.submitted_at),
                store={"uri": uri, "aws_conn_id": self.aws_conn_id} if uri else None,
                has_receipt=self._has_receipt,
                state={
                    "paid_by": attempt.paid_by and attempt.paid_by.to_dict(),
                    "unused_cost": attempt.unused_cost,
                    # An earlier version, which may resume the task, does not know this argument.
                    **({"moderated": list(attempt.moderated)} if attempt.moderated else {}),
                },
            )

    def _store(self, result: Result, attempt: _Attempt) -> dict[str, Any]:
        """Store the image of a finished job, if it has a destination."""
        from airflow_provider_flux.images.transfer import download_and_store

        if attempt.store is None:
            self.log.info(
                "Job %s is ready. output_uri is not set, so the image is not stored; its URL expires in minutes.",
                result.job.id,
            )
            is_first = mark_ready(attempt.receipts, result.job)
            self._hook.settle(result.job, result.cost)
            return self._finish(ImageResult.of_result(result), attempt, was_counted=not is_first)
        with failure_recorded(attempt.receipts, self.on_expired, seed=result.seed):
            max_bytes = bytes_or_default(self.max_bytes, MAX_BYTES)
            try:
                image = download_and_store(self._hook.get_conn(), result, attempt.store, max_bytes)
            finally:
                # After the image, whose URL expires.
                self._hook.settle(result.job, result.cost)
            return self._finish_stored(image, attempt)

    def _finish_stored(self, image: ImageResult, attempt: _Attempt) -> dict[str, Any]:
        log_stored(self.log, image)
        return self._finish(image, attempt, was_counted=False)

    def _finish_already_stored(self, image: ImageResult, attempt: _Attempt) -> dict[str, Any]:
        self.log.info("The image of job %s is already stored at %s.", image.id, image.uri)
        return self._finish(image, attempt, was_counted=True)

    def _finish_unawaited(self, job: Job, attempt: _Attempt) -> dict[str, Any]:
        image = ImageResult.of_job(job)
        if attempt.paid_by is not None:
            image = image.as_reused(attempt.run, attempt.paid_by)
        # For the task that waits for the job.
        reserved = {} if job.reservation is None else {"reservation": job.reservation}
        result = self._result(attempt.context, {**image.to_dict(), **reserved})
        self._announce(attempt.context, [], None, result)
        return result

    def _finish(self, image: ImageResult, attempt: _Attempt, was_counted: bool) -> dict[str, Any]:
        """Log and count what was paid, announce the image, and return the task's result.

        :param was_counted: Whether an earlier attempt of this run has counted what it paid.
        """
        if attempt.paid_by is not None:
            self.log.info("Job %s is not billed to this run: run %s paid for it.", image.id, attempt.paid_by.run_id)
        elif image.cost is not None:
            payer = "An earlier attempt of this run paid" if was_counted else "Paid"
            self.log.info("%s %s for job %s.", payer, format_cost(image.cost), image.id)
        if was_counted or attempt.paid_by is not None:
            image = image.as_reused(attempt.run, attempt.paid_by)
            metrics.reused(self._metric_tags)
        else:
            metrics.ready(image, self._metric_tags)
        image = image.with_unused(attempt.unused_cost, attempt.moderated)
        result = self._result(attempt.context, image.to_dict())
        self._announce(attempt.context, [image.uri] if image.uri else [], image.uri, result)
        return result

    @property
    def _requested_model(self) -> str | None:
        return self.model

    def _retry_sentence(self, error: FluxError) -> str:
        return retry_sentence(error, self._has_receipt, self.on_orphan)

    def _handle_error(self, error: FluxError) -> None:
        super()._handle_error(error)
        if self._job is not None and self._job.id == error.job_id:
            self._hook.settle(self._job, error=error)
        if isinstance(error, FluxModeratedError) and self.on_moderated == "skip":
            raise AirflowSkipException(str(error)) from None


@dataclass(frozen=True)
class _Attempt:
    """One attempt of the task, from the submit to the image.

    :param run: The task instance.
    :param store: Where the image is stored; None: nowhere.
    :param receipts: Where its receipt is stored.
    :param paid_by: The other task that paid for the job, if so.
    :param unused_cost: Credits of further jobs that the task pays for and does not use.
    :param moderated: The ids of those that output moderation withheld.
    """

    context: Context
    run: TaskIdentity
    store: ImageStore | None
    receipts: ReceiptStore
    paid_by: TaskIdentity | None = None
    unused_cost: float = 0.0
    moderated: tuple[str, ...] = ()

    def of(self, receipt: Receipt) -> _Attempt:
        """Return the attempt of the job that ``receipt`` names."""
        return replace(
            self,
            paid_by=receipt.paid_by_other_than(self.run),
            unused_cost=receipt.unused_cost(self.run),
            moderated=tuple(receipt.moderated_jobs(self.run)),
        )
