"""FluxGenerateOperator: one prompt becomes one image."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_flux import metrics
from airflow_provider_flux.arguments import bytes_or_default, parse_bytes, parse_seconds
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.exceptions import FluxBadRequestError, FluxError, FluxModeratedError, FluxRateLimitError
from airflow_provider_flux.execution.capacity import Queued, defer_submit
from airflow_provider_flux.execution.deferral import (
    DEFAULT_DEFER_AFTER,
    deadline_for,
    event_uri,
    log_stored,
    read_event,
    wait_or_defer,
)
from airflow_provider_flux.execution.outlets import openlineage_outputs, record_asset_events
from airflow_provider_flux.execution.templates import TemplatedOperator
from airflow_provider_flux.failures import abandoned_job_message, airflow_errors, retry_sentence
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.links.flux import FluxImageLink
from airflow_provider_flux.receipts.lifecycle import failure_recorded, mark_ready
from airflow_provider_flux.receipts.recipe import image_name
from airflow_provider_flux.receipts.submission import Submission, check_policies, task_identity
from airflow_provider_flux.results import describe, describe_job, describe_reused, with_unused

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_flux.client.responses import Result
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.images.inputs import InputImages
    from airflow_provider_flux.receipts.stores import ReceiptStore
    from airflow_provider_flux.storage.base import ImageStore

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


class FluxGenerateOperator(TemplatedOperator):
    """Generate one image with a FLUX model, and store it if told where.

    Submits a paid job on the worker, waits for it shortly there and then in the triggerer, and returns a
    plain dict: ``id``, ``model``, ``status``, ``seed``, ``cost`` (credits that this run pays, in any of
    its attempts), ``duration`` (seconds), ``submitted_at`` (UTC in ISO 8601) and, with an ``output_uri``, ``uri``,
    ``width``, ``height``, ``format``, ``content_type``, ``bytes``, ``sha256``. An image that was paid for before has
    ``reused`` (true) and ``paid_by`` (``dag_id``, ``task_id``, ``run_id``, ``map_index``) too. The result never holds
    the signed link, which dies after ten minutes, or the prompt, which the receipt has.

    The request's fields are those of https://apidoc.cometapi.com/api/image/flux/flux-generate-image; which of
    them a model takes differs, see https://docs.bfl.ml. Text that a template renders to is read as what the
    field takes; a field that is None is not sent. A template that renders to nothing fails the task before anything
    is paid for. So does an empty prompt or input image, since the request without it makes another image.

    :param model: Model, such as ``"flux-pro-1.1"`` or ``"flux-2-pro"``.
    :param prompt: What the image should show; a dict or a list is sent as JSON text.
    :param image_prompt: Reference image. As every input image (``input_image``, ``image``, ``mask``,
        ``control_image``, ``images``, ... in ``parameters``) it may be a URL, a ``data:`` URI, base64, a URI that
        the worker reads (``s3://bucket/key.png``, ``file:///folder/x.png``), or what an earlier
        FluxGenerateOperator returned. It is checked, and sent in the form that the gateway takes.
    :param width: Pixels.
    :param height: Pixels.
    :param steps: Diffusion steps.
    :param prompt_upsampling: Let the API enhance the prompt.
    :param seed: Seed of a reproducible image; default: a random one, told in the result.
    :param guidance: How closely the image follows the prompt.
    :param safety_tolerance: 0 (strict) to 6 (lenient); some models end at 5 or 4.
    :param interval: Diversity of the image, for ``flux-pro``.
    :param output_format: ``"jpeg"``, ``"png"`` or, with newer models, ``"webp"``.
    :param webhook_url: URL that the API calls when the job ends. The operator polls all the same.
    :param webhook_secret: Secret for that call.
    :param parameters: Any other field of the request.
    :param strict: Refuse a model or parameter that is not known here, rather than send it with a warning.
    :param output_uri: Where to store the image: ``s3://bucket/key.png``, ``file:///folder/x.png``, or any other
        URI that ObjectStoragePath opens. One that ends in ``/`` gets a file name made of task id, map index
        and recipe. Default: the image is not stored.
    :param replace: Whether to replace another run's image, or any other object, at ``output_uri``; a warning names
        what goes. If False, the task fails before anything is paid.
    :param aws_conn_id: Connection of the amazon provider, for ``s3://``.
    :param flux_conn_id: Connection of the FLUX API.
    :param wait_for_completion: Whether to wait for the image; if not, the job is returned once submitted.
    :param deferrable: Wait in the triggerer, so that no worker is held.
    :param defer_after: Seconds to wait on the worker before deferring.
    :param timeout: Seconds after the submit at which waiting ends; ``execution_timeout`` ends it sooner. As long,
        at most, it waits before for room at the API (HTTP 429), in the triggerer too.
    :param poll_interval: Seconds between polls; default: from when such jobs usually finish.
    :param max_bytes: Largest image that is taken, in bytes.
    :param reuse: When an image or job that was paid for is taken instead of a new one, if its recipe (model and
        parameters) is the same. ``"run"``: within the same DAG run, so that a retry or a clear is not billed again;
        ``"always"``: across runs and backfills too, where the image lies at ``output_uri``; ``"never"``.
    :param on_orphan: If an earlier try sent a submit and never learned its job's id: ``"resubmit"`` (perhaps
        paying twice; logged, and counted in the receipt) or ``"fail"``.
    :param on_expired: If a paid image's link died before anyone stored it: ``"fail"``, or ``"resubmit"``, which
        lets a retry buy it anew with the same seed.
    :param on_moderated: ``"fail"`` (without retry) or ``"skip"`` the task.
    :raises FluxError: the class tells the outcome (``airflow_provider_flux.exceptions``). One that a retry
        cannot mend is an ``AirflowFailException`` too.
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
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"prompt": "text", "parameters": "json"}
    operator_extra_links = (FluxImageLink(),)
    ui_color = "#e8e4f3"

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
        # Numbers from here on only when the task runs: until then, each may be a template.
        self.defer_after: Any = defer_after
        self.timeout: Any = timeout
        self.poll_interval: Any = poll_interval
        self.max_bytes: Any = max_bytes
        self.reuse = reuse
        self.on_orphan = on_orphan
        self.on_expired = on_expired
        self.on_moderated = on_moderated
        self._job: Job | None = None
        self._queued: Queued | None = None
        self._is_submitting = self._is_running = False
        self._image_uri: str | None = None
        self._unused_cost = 0.0
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

    @cached_property
    def _hook(self) -> FluxHook:
        from airflow_provider_flux.hooks.flux import FluxHook

        return FluxHook(self.flux_conn_id, log_errors=False)

    def execute(self, context: Context) -> dict[str, Any]:
        """Find the job of an earlier try or submit one, wait for it, store the image."""
        with self._errors():
            (request, images), store = self._request(), None
            if uri := self._uri(request, context):
                store = self._store(uri)
                store.check()
            receipts = self._receipt_store(store, context)
            submission = self._submission(request, images, store, receipts, context)
            self._is_submitting = True
            try:
                receipt = submission.get_or_submit(self._hook)
            except FluxRateLimitError as error:
                if self.deferrable:
                    defer_submit(self, error, self._queued or Queued(deadline_for(self, None, self.timeout)))
                raise
            self._is_submitting = False
            paid_by, self._unused_cost = receipt.payer_beside(submission.run), receipt.unused_cost(submission.run)
            if receipt.state == "stored":
                return self._reused(receipt.image or {}, paid_by, context)
            self._job = job = receipt.paid_job()
            if not self.wait_for_completion:
                return self._not_awaited(job, paid_by, context)
            with failure_recorded(receipts, self.on_expired):
                result = wait_or_defer(
                    self,
                    self._hook,
                    job,
                    deadline=deadline_for(self, job.submitted_at, self.timeout),
                    deferrable=self.deferrable,
                    defer_after=self.defer_after,
                    poll_interval=self.poll_interval,
                    store={"uri": uri, "aws_conn_id": self.aws_conn_id} if uri else None,
                    max_bytes=self.max_bytes,
                    has_receipt=self._has_receipt,
                    paid_by=paid_by,
                    unused_cost=self._unused_cost,
                )
            return self._finish(result, store, receipts, paid_by, context)

    def execute_queued(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Submit again, after waiting in the triggerer for room at the API."""
        self._queued = Queued.read(event)
        return self.execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Go on after the triggerer has waited."""
        with self._errors():
            # An event of another version may not name the place.
            uri = event_uri(event) or self._uri_without_recipe()
            store = self._store(uri) if uri else None
            receipts = self._receipt_store(store, context)
            with failure_recorded(receipts, self.on_expired):
                self._job, image, timeout, paid_by, self._unused_cost = read_event(event, self.log)
                if image is not None:
                    return self._stored(image, paid_by, context)
                result = self._hook.wait(self._job, timeout)
            return self._finish(result, store, receipts, paid_by, context)

    def on_kill(self) -> None:
        """Log what becomes of the job, which the API cannot cancel.

        Airflow calls it at the end of an execution_timeout, and on SIGTERM, after which the task may well go on.
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

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return what OpenLineage is told: the stored image."""
        return openlineage_outputs([self._image_uri] if self._image_uri else [])

    def _finish(
        self,
        result: Result,
        store: ImageStore | None,
        receipts: ReceiptStore,
        paid_by: dict[str, Any] | None,
        context: Context,
    ) -> dict[str, Any]:
        from airflow_provider_flux.images.transfer import download_and_store

        if store is None:
            self.log.info(
                "Job %s is ready. output_uri is not set, so the image is not stored; its URL expires in minutes.",
                result.job.id,
            )
            is_counted = not mark_ready(receipts, result.job)
            return self._returned(describe(result), paid_by, context, is_counted)
        with failure_recorded(receipts, self.on_expired, seed=result.seed):
            image = download_and_store(
                self._hook.get_conn(), result, store, bytes_or_default(self.max_bytes, MAX_BYTES)
            )
            return self._stored(image, paid_by, context)

    def _stored(self, image: dict[str, Any], paid_by: dict[str, Any] | None, context: Context) -> dict[str, Any]:
        log_stored(self.log, image)
        return self._returned(image, paid_by, context, is_counted=False)

    def _reused(self, image: dict[str, Any], paid_by: dict[str, Any] | None, context: Context) -> dict[str, Any]:
        self.log.info("The image of job %s is already stored at %s.", image["id"], image["uri"])
        return self._returned(image, paid_by, context, is_counted=True)

    def _returned(
        self, image: dict[str, Any], paid_by: dict[str, Any] | None, context: Context, is_counted: bool
    ) -> dict[str, Any]:
        """Return what the task returns of an image; log, count and announce it.

        :param paid_by: The task that paid for it, if it is another one.
        :param is_counted: Whether an earlier try of this run has counted what it paid.
        """
        if paid_by is not None:
            self.log.info("Nothing is paid for job %s: run %s paid for it.", image["id"], paid_by["run_id"])
        elif image.get("cost") is not None:
            by = "An earlier try of this run paid" if is_counted else "Paid"
            self.log.info("%s %s credits for job %s.", by, image["cost"], image["id"])
        if is_counted or paid_by is not None:
            image = describe_reused(image, asdict(task_identity(context)), paid_by)
            metrics.reused(self._tags)
        else:
            metrics.ready(image, self._tags)
        image = with_unused(image, self._unused_cost)
        self._image_uri = image.get("uri")
        record_asset_events(self, context, self._image_uri, image)
        return image

    def _not_awaited(self, job: Job, paid_by: dict[str, Any] | None, context: Context) -> dict[str, Any]:
        described = describe_job(job)
        if paid_by is not None:
            described = describe_reused(described, asdict(task_identity(context)), paid_by)
        record_asset_events(self, context, None, described)
        return described

    def _request(self) -> tuple[dict[str, Any], InputImages]:
        """Return the request's fields as the API takes them, and its images; or fail before money is spent."""
        # Here, so that a DAG file does not wait for the catalogue.
        from airflow_provider_flux.client.catalogue.models import check_model
        from airflow_provider_flux.client.catalogue.validation import blank_content_problems, build_request
        from airflow_provider_flux.images.inputs import InputImages

        self._check_templates()
        check_policies(
            reuse=self.reuse,
            on_orphan=self.on_orphan,
            on_expired=self.on_expired,
            on_moderated=self.on_moderated,
        )
        self.defer_after = parse_seconds("defer_after", self.defer_after, minimum=0.0)
        self.timeout = parse_seconds("timeout", self.timeout)
        if self.poll_interval is not None:
            self.poll_interval = parse_seconds("poll_interval", self.poll_interval, minimum=0.1)
        self.max_bytes = parse_bytes("max_bytes", self.max_bytes)
        if self.reuse == "always" and not self.output_uri:
            raise FluxBadRequestError("reuse='always' needs an output_uri, where the image can be found again.")
        fields = {name: getattr(self, name) for name in REQUEST_FIELDS}
        given = {name: value for name, value in fields.items() if value is not None or self._is_mapped_image(name)}
        parameters = self._own_parameters()
        if twice := sorted(given.keys() & parameters.keys()):
            raise FluxBadRequestError(f"Given twice, as argument and in parameters: {', '.join(twice)}.")
        images = InputImages(check_model(self.model), self._hook.get_conn(), self.aws_conn_id)
        fields = {**parameters, **given}
        named, problems = images.name(fields)
        problems = [*blank_content_problems(fields), *problems]
        return build_request(self.model, named, self._hook.endpoint.gateway, self.strict, problems), images

    def _is_mapped_image(self, name: str) -> bool:
        """Return whether what the image is made of comes from a mapped argument, so that None is no default."""
        return name in ("prompt", "image_prompt") and self._comes_mapped and name in self._given

    def _uri(self, request: dict[str, Any], context: Context) -> str | None:
        uri = str(self.output_uri or "").strip()
        if uri.endswith("/"):
            uri += image_name(self.task_id, context["ti"].map_index, self.model, request)
        return uri or None

    def _uri_without_recipe(self) -> str | None:
        uri = str(self.output_uri or "").strip()
        return None if uri.endswith("/") else uri or None

    def _store(self, uri: str) -> ImageStore:
        from airflow_provider_flux.storage import open_store

        return open_store(uri, self.aws_conn_id)

    def _receipt_store(self, store: ImageStore | None, context: Context) -> ReceiptStore:
        from airflow_provider_flux.receipts.stores import NullReceiptStore, open_receipt_store

        receipts = open_receipt_store(store, context.get("task_state_store"))
        self._has_receipt = self.reuse != "never" and not isinstance(receipts, NullReceiptStore)
        return receipts

    def _submission(
        self,
        request: dict[str, Any],
        images: InputImages,
        store: ImageStore | None,
        receipts: ReceiptStore,
        context: Context,
    ) -> Submission:
        if not self._has_receipt and self.reuse != "never":
            self.log.warning(
                "No receipt can be saved: set output_uri, or use Airflow 3.3 or newer. Without one, a retry submits "
                "(and pays for) a new job."
            )
        return Submission(
            self.model,
            request,
            images,
            task_identity(context),
            receipts,
            store,
            self.reuse,
            self.on_orphan,
            self.on_expired,
            self.replace,
            wait_for_capacity=not self.deferrable,
        )

    def _retry(self, error: FluxError) -> str:
        return retry_sentence(error, self._has_receipt, self.on_orphan)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        self._is_running = True
        try:
            with airflow_errors(self._retry):
                try:
                    yield
                except FluxError as error:
                    metrics.failed(type(error).__name__, self._tags)
                    if isinstance(error, FluxModeratedError) and self.on_moderated == "skip":
                        # Inside, so that the log has no ERROR for what is only a skip.
                        raise AirflowSkipException(str(error)) from None
                    raise
        finally:
            self._is_running = False

    @property
    def _tags(self) -> dict[str, str]:
        return metrics.tags_of(self.model, self._hook)
