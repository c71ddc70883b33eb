"""FluxGenerateOperator: one prompt becomes one image."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from airflow.sdk import BaseOperator

from airflow_provider_flux.client.errors import FluxBadRequestError
from airflow_provider_flux.client.jobs import read_mapping
from airflow_provider_flux.client.models import prepare
from airflow_provider_flux.exceptions import airflow_errors
from airflow_provider_flux.images.recipe import describe, describe_job, image_name
from airflow_provider_flux.links.flux import FluxImageLink
from airflow_provider_flux.operators.waiting import GRACE, read_event, wait_or_defer

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_flux.client.answers import Result
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.images.stores import Store

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
RETRY = "A retry of this task submits a new job, which is paid for on its own."


class FluxGenerateOperator(BaseOperator):
    """Generate one image with a FLUX model, and store it if told where.

    Submits a paid job on the worker, waits for it shortly there and then in the triggerer, and returns a
    plain dict: ``id``, ``model``, ``status``, ``seed``, ``cost`` (credits), ``duration`` (seconds),
    ``submitted_at`` (Unix time) and, with an ``output_uri``, ``uri``, ``width``, ``height``, ``format``,
    ``content_type``, ``bytes``, ``sha256``. It never holds the signed link, which dies after ten minutes.

    The request's fields are those of https://apidoc.cometapi.com/api/image/flux/flux-generate-image; which of
    them a model takes differs, see https://docs.bfl.ml. Text that a template renders to is read as what the
    field takes; unset and empty fields are not sent.

    :param model: Model, such as ``"flux-pro-1.1"`` or ``"flux-2-pro"``.
    :param prompt: What the image should show.
    :param image_prompt: Reference image: a URL (CometAPI) or base64 (Black Forest Labs).
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
    :param output_uri: Where to store the image: ``s3://bucket/key.png``, ``file:///folder/x.png``, or any other
        URI that ObjectStoragePath opens. One that ends in ``/`` gets a file name made of task id, map index
        and recipe. Default: the image is not stored.
    :param aws_conn_id: Connection of the amazon provider, for ``s3://``.
    :param flux_conn_id: Connection of the FLUX API.
    :param wait_for_completion: Whether to wait for the image; if not, the job is returned once submitted.
    :param deferrable: Wait in the triggerer, so that no worker is held.
    :param grace: Seconds to wait on the worker before deferring.
    :param timeout: Seconds after the submit at which waiting ends.
    :param poll_interval: Seconds between polls; default: close at first, then wider.
    :raises FluxError: the class tells the outcome (``airflow_provider_flux.client.errors``). One that a retry
        cannot mend is an ``AirflowFailException`` too.
    """

    template_fields: Sequence[str] = (
        "model",
        *REQUEST_FIELDS,
        "parameters",
        "output_uri",
        "aws_conn_id",
        "flux_conn_id",
    )
    template_fields_renderers: ClassVar[dict[str, str]] = {"prompt": "text", "parameters": "json"}
    operator_extra_links = (FluxImageLink(),)
    ui_color = "#e8e4f3"

    def __init__(
        self,
        *,
        model: str,
        prompt: str | None = None,
        image_prompt: str | None = None,
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
        output_uri: str | None = None,
        aws_conn_id: str | None = "aws_default",
        flux_conn_id: str = "flux_default",
        wait_for_completion: bool = True,
        deferrable: bool = True,
        grace: float = GRACE,
        timeout: float = 600,
        poll_interval: float | None = None,
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
        self.output_uri = output_uri
        self.aws_conn_id = aws_conn_id
        self.flux_conn_id = flux_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.grace = grace
        self.timeout = timeout
        self.poll_interval = poll_interval

    @cached_property
    def _hook(self) -> FluxHook:
        from airflow_provider_flux.hooks.flux import FluxHook

        return FluxHook(self.flux_conn_id)

    def execute(self, context: Context) -> dict[str, Any]:
        """Submit the job, wait for it, store the image."""
        with airflow_errors(RETRY):
            request = self._request()
            uri = self._uri(request, context)
            if uri is not None:
                self._store(uri).check()
            job = self._hook.submit(self.model, request)
            self.log.info("Submitted job %s to %s.", job.id, self.model)
            if not self.wait_for_completion:
                if uri is not None:
                    self.log.warning("The image is not stored at %s: nobody waits for it here.", uri)
                return describe_job(job)
            result = wait_or_defer(
                self,
                self._hook,
                job,
                timeout=self.timeout,
                deferrable=self.deferrable,
                grace=self.grace,
                poll_interval=self.poll_interval,
                uri=uri,
            )
            return self._finish(result, uri)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Go on after the triggerer has waited."""
        with airflow_errors(RETRY):
            job, uri, timeout = read_event(event)
            return self._finish(self._hook.wait(job, timeout), uri)

    def _request(self) -> dict[str, Any]:
        """Return the request's fields as the API takes them, or fail before money is spent."""
        fields = {name: getattr(self, name) for name in REQUEST_FIELDS}
        given = {name: value for name, value in fields.items() if value not in (None, "")}
        parameters = read_mapping(self.parameters or {})
        if parameters is None:
            raise FluxBadRequestError("parameters must be a dict of request fields.")
        if twice := sorted(given.keys() & parameters.keys()):
            raise FluxBadRequestError(f"Given twice, as argument and in parameters: {', '.join(twice)}.")
        return prepare(self.model, {**parameters, **given})

    def _uri(self, request: dict[str, Any], context: Context) -> str | None:
        uri = (self.output_uri or "").strip()
        if uri.endswith("/"):
            uri += image_name(self.task_id, context["ti"].map_index, self.model, request)
        return uri or None

    def _store(self, uri: str) -> Store:
        from airflow_provider_flux.images.stores import open_store

        return open_store(uri, self.aws_conn_id)

    def _finish(self, result: Result, uri: str | None) -> dict[str, Any]:
        from airflow_provider_flux.images.delivery import deliver

        if uri is None:
            self.log.info("Job %s is ready; no output_uri was given, so its link dies in minutes.", result.job.id)
            return describe(result)
        image = deliver(self._hook.get_conn(), result, self._store(uri))
        self.log.info(
            "Stored the image of job %s at %s (%dx%d %s, %d bytes).",
            result.job.id,
            uri,
            image["width"],
            image["height"],
            image["format"],
            image["bytes"],
        )
        return image
