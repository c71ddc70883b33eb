"""FluxGenerateBatchOperator: many prompts become many images, in one task."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from airflow_provider_flux import metrics
from airflow_provider_flux.arguments import parse_bytes, parse_count, parse_credits, parse_seconds
from airflow_provider_flux.exceptions import FluxBadRequestError, FluxBatchError, FluxError
from airflow_provider_flux.execution.outlets import openlineage_outputs, record_asset_events
from airflow_provider_flux.execution.templates import TemplatedOperator
from airflow_provider_flux.failures import airflow_errors
from airflow_provider_flux.identity import task_identity
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.links.flux import FluxImageLink
from airflow_provider_flux.receipts.submission import check_policies

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_flux.batch.requests import Item
    from airflow_provider_flux.batch.runner import BatchRun, Rules
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.storage.base import ImageStore


class FluxGenerateBatchOperator(TemplatedOperator):
    """Generate many images in one task, and store each as soon as it is there.

    Runs on the worker as one loop that keeps up to ``max_active`` jobs in flight. Each image has its receipt beside
    it, so a retry, a clear or a killed worker goes on where the receipts say and buys only what is missing.

    Ends with a manifest beside the images, a line for each request in the order given: ``index``, ``state``
    (``stored``, ``moderated``, ``failed``, ``not_submitted``), ``model``, ``prompt``, ``file_name``, ``uri``, ``id``,
    ``seed``, ``cost``, ``error`` and, of a stored image, what FluxGenerateOperator returns. Each run has a manifest of
    its own; ``manifest.jsonl`` is a copy of the newest one. Returns ``manifest`` (the URI of the run's own),
    ``manifest_sha256`` (in hex), ``counts`` (``requested``, ``stored``, ``reused``, ``moderated``, ``failed``,
    ``not_submitted``) and ``cost`` (credits that this run paid). If any failed, the task fails at the end; what
    succeeded is kept, and the result is pushed all the same. What no request can get past (a wrong key, no credits)
    ends the submits.

    :param requests: List of prompts, or of dicts of a request's fields, which may also hold ``model``,
        ``parameters`` and ``file_name`` (in the folder ``output_uri``; default: made of the recipe). A string is a
        prompt, also if it is JSON; a ``prompt`` that is a dict or a list is sent as JSON text. The ending of a
        ``file_name`` that names no image format is part of the name, and the format's is added.
    :param output_uri: Folder for the images: ``s3://bucket/folder/``, ``file:///folder/``, or any other URI that
        ObjectStoragePath opens.
    :param model: Model of the requests that name none.
    :param parameters: Fields of all requests; a request's own come before.
    :param max_active: Jobs in flight at most; the API allows 24 an account, 6 for ``flux-kontext-max``.
    :param max_failures: Failed requests that are tolerated: beyond that number, nothing more is submitted;
        default: no limit.
    :param max_cost: Credits that this run may pay; no request is submitted that would pass it. What an image costs
        is learned from the first of its model and size, for which all others wait, so one image alone may pass it.
        If the API does not tell what images cost, only one is submitted.
    :param on_max_cost: If requests are not submitted because of ``max_cost``: ``"fail"``, or ``"stop"``, which lets
        the task succeed with what it has, unless something else went wrong too.
    :param timeout: Seconds after its submit at which waiting for an image ends. Waiting for room at the API ends
        when it has taken no job, and no job has ended, for as long.
    :param poll_interval: Seconds between polls; default: from when such jobs usually finish.
    :param max_bytes: Largest image that is taken, in bytes.
    :param strict: Refuse a model or parameter that is not known here, rather than send it with a warning.
    :param reuse: As in FluxGenerateOperator: ``"run"``, ``"always"``, ``"never"``.
    :param on_orphan: As in FluxGenerateOperator: ``"resubmit"``, ``"fail"``.
    :param on_expired: As in FluxGenerateOperator: ``"fail"``, ``"resubmit"``.
    :param on_moderated: Whether a moderated request fails the task (``"fail"``) or is only counted (``"skip"``).
    :param replace: Whether to replace images of another run, or any other objects, of the same names; a warning names
        what goes. If False, such requests fail before they are paid for.
    :param aws_conn_id: Connection of the amazon provider, for ``s3://``.
    :param flux_conn_id: Connection of the FLUX API.
    :raises FluxBadRequestError: before money is spent, listing everything that is wrong with the requests.
    :raises FluxBatchError: at the end, if some requests failed.
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
        "aws_conn_id",
        "flux_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"requests": "json", "parameters": "json"}
    operator_extra_links = (FluxImageLink(),)
    ui_color = "#e8e4f3"

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
        replace: bool = True,
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
        self.replace = replace
        self.aws_conn_id = aws_conn_id
        self.flux_conn_id = flux_conn_id
        self._run: BatchRun | None = None
        self._is_running = False

    @cached_property
    def _hook(self) -> FluxHook:
        from airflow_provider_flux.hooks.flux import FluxHook

        return FluxHook(self.flux_conn_id, log_errors=False)

    def execute(self, context: Context) -> dict[str, Any]:
        """Check all requests, bring each to its end, write the manifest."""
        from airflow_provider_flux.batch.requests import own_manifest
        from airflow_provider_flux.batch.runner import BatchRun
        from airflow_provider_flux.execution.interrupts import run_interruptible

        self._run = None
        with self._errors():
            self._check_templates()
            rules, newest = self._rules(), self._manifest()
            items = self._items(newest)
            newest.check()
            run = task_identity(context)
            manifest = newest.sibling(own_manifest(run))
            self._run = batch = BatchRun(items, self._hook, manifest, run, rules)
            self._is_running = True
            try:
                run_interruptible(batch.finish())
            finally:
                self._is_running = False
                sha256 = self._write((newest, manifest), batch.lines)
            self.log.info("%s; %g credits paid; see %s.", _words(batch.counts), batch.cost, manifest.uri)
            cost = round(batch.cost, 6)
            result = {"manifest": manifest.uri, "manifest_sha256": sha256, "counts": batch.counts, "cost": cost}
            self._check_complete(batch, manifest, result, context)
            extra = {"uri": newest.uri, "manifest": manifest.uri, "cost": cost, **batch.counts}
            record_asset_events(self, context, newest.uri if batch.counts["stored"] else None, extra)
            return result

    def on_kill(self) -> None:
        """Log what becomes of the jobs in flight, which the API cannot cancel."""
        if self._run is None or not self._run.in_flight:
            return
        jobs = ", ".join(self._run.in_flight.values())
        if self._is_running:
            self.log.info(
                "This process received a termination signal while jobs %s are running, and goes on. The API cannot "
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

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the stored images as OpenLineage outputs."""
        lines = self._run.lines if self._run is not None else []
        return openlineage_outputs([line["uri"] for line in lines if line["uri"]])

    def _items(self, manifest: ImageStore) -> list[Item]:
        from airflow_provider_flux.batch.requests import read_requests

        shared = self._own_parameters()
        return read_requests(self.requests, self.model, shared, self._hook.get_conn(), manifest, self.strict)

    def _rules(self) -> Rules:
        from airflow_provider_flux.batch.runner import Rules

        policies = {
            "reuse": self.reuse,
            "on_orphan": self.on_orphan,
            "on_expired": self.on_expired,
            "on_moderated": self.on_moderated,
        }
        check_policies(**policies, on_max_cost=self.on_max_cost)
        return Rules(
            max_active=parse_count("max_active", self.max_active, minimum=1),
            max_failures=None if self.max_failures is None else parse_count("max_failures", self.max_failures),
            max_cost=None if self.max_cost is None else parse_credits("max_cost", self.max_cost),
            timeout=parse_seconds("timeout", self.timeout),
            poll_interval=None
            if self.poll_interval is None
            else parse_seconds("poll_interval", self.poll_interval, 0.1),
            max_bytes=parse_bytes("max_bytes", self.max_bytes),
            strict=self.strict,
            replace=self.replace,
            aws_conn_id=self.aws_conn_id,
            **policies,
        )

    def _manifest(self) -> ImageStore:
        from airflow_provider_flux.batch.requests import MANIFEST
        from airflow_provider_flux.storage import open_store

        folder = str(self.output_uri or "").strip()
        if not folder:
            raise FluxBadRequestError("output_uri is empty; it must be a folder such as s3://bucket/folder/.")
        return open_store(f"{folder.rstrip('/')}/{MANIFEST}", self.aws_conn_id)

    def _write(self, manifests: tuple[ImageStore, ...], lines: list[dict[str, Any]]) -> str | None:
        """Return the manifest's SHA-256; None if it could not be written, which is not to hide what came before."""
        data = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in lines).encode(errors="replace")
        if not lines:
            return None
        with tempfile.TemporaryDirectory(prefix="flux-") as folder:
            path = Path(folder) / "lines"
            path.write_bytes(data)
            for manifest in manifests:
                try:
                    manifest.put(path, "application/x-ndjson", {})
                except Exception:
                    self.log.exception("%s could not be written.", manifest.uri)
                    return None
        return hashlib.sha256(data).hexdigest()

    def _check_complete(self, batch: BatchRun, manifest: ImageStore, result: dict[str, Any], context: Context) -> None:
        """Fail if images are missing, or the manifest is; the result is pushed first, for who comes after.

        :raises FluxBatchError: saying how many, and why.
        :raises FluxStoreError: if the manifest could not be written.
        """
        from airflow_provider_flux.exceptions import FluxStoreError

        counts, is_written = batch.counts, result["manifest_sha256"] is not None
        over = batch.over_max_cost if self.on_max_cost == "stop" else 0
        missing = len(batch.errors) + counts["not_submitted"] - over
        if not missing and is_written:
            return
        see = f"see {manifest.uri}" if is_written else f"but {manifest.uri} could not be written"
        money = f"This run paid {batch.cost:g} credits; what succeeded is stored, {see}."
        if is_written:
            context["ti"].xcom_push(key="return_value", value=result)
        if missing:
            reasons = Counter(f"{type(error).__name__} ({error.message})" for error in batch.errors)
            why = [f"{number} x {reason}" for reason, number in reasons.most_common(3)]
            because = "; ".join([*why, *batch.reasons])
            what = f"{missing} of {counts['requested']} images are missing ({_words(counts)})"
            error = FluxBatchError(f"{what}: {because}.", billing=money, faults=[f"{what}.", *why, *batch.reasons])
            error.retryable = any(one.retryable for one in batch.errors)
            raise error
        raise FluxStoreError("The batch's manifest could not be written; the log says why.", billing=money)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        with airflow_errors(self._retry):
            try:
                yield
            except FluxError as error:
                # Else its images are counted one by one.
                if self._run is None or not self._run.lines:
                    metrics.failed(type(error).__name__, metrics.tags_of(self.model, self._hook))
                raise

    def _retry(self, error: FluxError) -> str:
        if not error.retryable:
            return ""
        if self._run is not None:
            return "A retry of this task buys only what is missing."
        return "A retry of this task tries again."


def _words(counts: dict[str, int]) -> str:
    return ", ".join(f"{number} {name.replace('_', ' ')}" for name, number in counts.items() if number)
