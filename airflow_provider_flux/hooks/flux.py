"""FluxHook: a client of the FLUX API, configured by an Airflow connection."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, ClassVar
from urllib.parse import parse_qsl, urlsplit
from weakref import WeakKeyDictionary

from airflow.providers.common.compat.connection import get_async_connection
from airflow.sdk import BaseHook
from airflow.sdk.log import mask_secret

from airflow_provider_flux.arguments import parse_seconds
from airflow_provider_flux.client.gateways import BFL, Endpoint, make_endpoint
from airflow_provider_flux.client.jobs import Job, job_from
from airflow_provider_flux.exceptions import (
    FluxAuthenticationError,
    FluxBadRequestError,
    FluxConfigurationError,
    FluxCreditsError,
    FluxError,
    FluxServiceError,
)
from airflow_provider_flux.failures import AirflowNotFoundException, airflow_errors
from airflow_provider_flux.images.verification import MAX_BYTES

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_flux.client.catalogue.prices import Estimate
    from airflow_provider_flux.client.client import FluxClient
    from airflow_provider_flux.client.responses import Result
    from airflow_provider_flux.images.verification import Image
    from airflow_provider_flux.spending.reservations import Reservations
    from airflow_provider_flux.spending.shared_budget import BudgetStatus, Price

_SHORTEST_SIGNATURE = 25
"""Characters of a URL's parameter from which it may be a signature or a session token."""
ENDPOINT_TTL = 30.0
"""Seconds for which triggers reuse a connection that was looked up."""

_MASK = "***"
_MASKED = (
    "Airflow passed its mask *** instead of the API key, as the Test button of Airflow 3.1 does. Test with: "
    "_AIRFLOW_PROCESS_CONTEXT=server airflow connections test <connection id>"
)


class _LookedUp:
    """A connection that the triggers of one loop share; the first that needs it looks it up, under the lock."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.endpoint: Endpoint | None = None
        self.expires = 0.0


_looked_up: WeakKeyDictionary[asyncio.AbstractEventLoop, dict[str, _LookedUp]] = WeakKeyDictionary()


class FluxHook(BaseHook):
    """Talk to the FLUX API with an Airflow connection of type ``flux``.

    The connection's host is the API's base URL (default ``https://api.cometapi.com``), its password the API
    key. Extra: ``gateway`` (``cometapi`` or ``bfl``; default: inferred from the host), ``timeout`` (connect
    and read timeout in seconds; default 30), ``allowed_delivery_networks`` (networks that are not public and from
    which images may be downloaded, as a list or separated by commas; default: none), ``budget`` (what all tasks with
    this connection may spend, such as ``"5000/month"``; default: no limit) and ``budget_uri`` (where the ledgers of
    budgets are, such as ``s3://bucket/flux-budget``).

    Errors are those of ``airflow_provider_flux.exceptions``. One that a retry cannot fix is an
    ``AirflowFailException`` too, so a ``@task`` that raises it is not retried.

    :param flux_conn_id: Id of the connection.
    :param log_errors: Whether an error is logged before it is raised, one fault a line; if False, the caller logs
        or handles it.
    :param budget: A budget over runs that applies in addition to the connection's: ``"5000/month"``, or a dict with
        ``limit``, ``uri`` and ``unknown_price``.
    :param aws_conn_id: Connection for the ledger of that budget on ``s3://``.
    """

    conn_name_attr: ClassVar[str] = "flux_conn_id"
    default_conn_name: ClassVar[str] = "flux_default"
    conn_type: ClassVar[str] = "flux"
    hook_name: ClassVar[str] = "FLUX"

    def __init__(
        self,
        flux_conn_id: str = default_conn_name,
        *,
        log_errors: bool = True,
        budget: Any = None,
        aws_conn_id: str | None = "aws_default",
    ) -> None:
        super().__init__()
        self.flux_conn_id = flux_conn_id
        self.log_errors = log_errors
        self._budget = budget
        self._aws_conn_id = aws_conn_id

    def _errors(self) -> AbstractContextManager[None]:
        return airflow_errors(is_logged=self.log_errors)

    @cached_property
    def endpoint(self) -> Endpoint:
        """The API that the connection names, and how to access it.

        :raises FluxConfigurationError: if the connection does not exist or is invalid.
        """
        with self._errors():
            return _endpoint(self._connection)

    @cached_property
    def _connection(self) -> Connection:
        with _missing_explained(self.flux_conn_id):
            return self.get_connection(self.flux_conn_id)

    @cached_property
    def reservations(self) -> Reservations:
        """What is reserved in the budgets of the connection and of this hook; reads no ledger yet.

        :raises FluxConfigurationError: if the connection's budget is invalid.
        :raises FluxBadRequestError: if this hook's budget is invalid.
        """
        from airflow_provider_flux.spending.reservations import Reservations
        from airflow_provider_flux.spending.shared_budget import read_budgets

        with self._errors():
            return Reservations(read_budgets(_extra(self._connection), self._budget, self._aws_conn_id))

    def check_budget(self) -> None:
        """Check what the budgets' authors wrote; reads no ledger.

        :raises FluxError: if it is invalid.
        """
        _ = self.reservations

    def budget_status(self) -> list[BudgetStatus]:
        """Return what is spent, reserved and left of each budget in its current period.

        :raises FluxError: if a budget is invalid, or its ledger cannot be read.
        """
        with self._errors():
            return self.reservations.status()

    @cached_property
    def _client(self) -> FluxClient:
        from airflow_provider_flux.client.client import FluxClient

        with self._errors():
            return FluxClient(self.endpoint)

    def get_conn(self) -> FluxClient:
        """Return the client, which is independent of Airflow."""
        return self._client

    def submit(
        self,
        model: str,
        parameters: dict[str, Any],
        strict: bool = False,
        wait_for_capacity: bool = True,
        before_request: Callable[[], None] = lambda: None,
    ) -> Job:
        """Submit a paid job and return it at once.

        :param model: The model's name, such as ``"flux-pro-1.1"``.
        :param parameters: The request's fields (``prompt``, ``width``, ...); unset and empty ones are not sent.
        :param strict: Whether to reject unknown models and parameters instead of sending them with a warning.
        :param wait_for_capacity: Whether to wait up to a minute while the account is at its limit of jobs (HTTP 429).
        :param before_request: Called right before each request; an exception that it raises ends the submit.
        :raises FluxBadRequestError: if they are invalid; nothing was billed.
        :raises FluxUncertainSubmitError: if the request got no response, so that a job may exist.
        :raises FluxBudgetReachedError: if it could exceed a budget; nothing was billed.
        :raises FluxError: any other failure; nothing was billed.
        """
        if secret := parameters.get("webhook_secret"):
            mask_secret(secret)
        with self._errors(), self.reservations.for_request(lambda: self._price(model, parameters)) as paid_request:
            job = self._client.submit(
                model,
                parameters,
                strict=strict,
                wait_for_capacity=wait_for_capacity,
                before_request=lambda: paid_request.before_request(before_request),
            )
            return paid_request.accepted(job)

    def _price(self, model: str, parameters: dict[str, Any]) -> Price:
        from airflow_provider_flux.spending.shared_budget import Price

        estimated = self.estimate(model, parameters)
        return Price(model, None if estimated is None else estimated.credits)

    def settle(self, job: Job, cost: float | None = None, error: FluxError | None = None) -> None:
        """Record in the budgets what a job cost, once it has ended; :meth:`wait` does it itself. Never raises.

        :param cost: Credits; None: unless the submit said, what was reserved.
        :param error: How the job ended, if not well.
        """
        if job.reservation is not None:
            self.reservations.settle(job, cost, error)

    def estimate(self, model: str, parameters: dict[str, Any]) -> Estimate | None:
        """Return what a request is expected to cost by the price list of Black Forest Labs; nothing is submitted.

        :param model: The model's name.
        :param parameters: The request's fields, as for :meth:`submit`.
        :return: ``credits`` and ``usd``; None if unknown: no price is published, or it depends on a size that is not
            known before the job runs.
        :raises FluxBadRequestError: if the request is invalid.
        """
        from airflow_provider_flux.client.catalogue.models import check_model
        from airflow_provider_flux.client.catalogue.prices import estimate
        from airflow_provider_flux.client.catalogue.validation import build_request
        from airflow_provider_flux.images.inputs import InputImages

        with self._errors():
            images = InputImages(check_model(model), self._client, None, unread=True)
            fields, problems = images.tokenize(parameters)
            request = build_request(model, fields, self.endpoint.gateway, problems=problems)
        return estimate(model, request, images.megapixels(request))

    def get_result(self, job: Job | dict[str, Any] | str) -> Result:
        """Return the current state of ``job``.

        :param job: A Job, what a FLUX task returned, or a job id.
        :raises FluxError: if the API returned no state of it.
        """
        with self._errors():
            return self._client.get_result(job_from(job))

    def wait(
        self,
        job: Job | dict[str, Any] | str,
        timeout: float = 600,
        poll_interval: float | None = None,
        settle: bool = True,
    ) -> Result:
        """Block until ``job`` is ready.

        :param job: A Job, what a FLUX task returned, or a job id.
        :param timeout: Seconds from now.
        :param poll_interval: Seconds between polls; default: estimated from how long such jobs take.
        :param settle: Whether to record the cost in the budgets now; if False, the caller calls :meth:`settle`.
        :raises FluxTimeoutError: if it is not ready in time; the job continues.
        :raises FluxError: if it failed, was moderated, or is unknown to the API.
        """
        with self._errors():
            paid_job = job_from(job)
            try:
                result = self._client.wait(paid_job, time.time() + timeout, poll_interval)
            except FluxError as error:
                if settle:
                    self.settle(paid_job, error=error)
                raise
            if settle:
                self.settle(paid_job, result.cost)
            return result

    def download(self, result: Result, file: str | os.PathLike[str] | BinaryIO, max_bytes: int = MAX_BYTES) -> Image:
        """Download and verify the image of a finished job, write it to ``file``, and return its properties.

        :param result: What :meth:`wait` returned.
        :param file: A path, or a file open for writing bytes.
        :param max_bytes: Largest accepted image, in bytes.
        :raises FluxBadImageError: if it is not one whole image, or its URL has expired.
        :raises FluxServiceError: if the delivery host does not respond.
        """
        from airflow_provider_flux.images.download import download_image

        with self._errors(), tempfile.TemporaryDirectory(prefix="flux-") as folder:
            path = Path(folder) / "image"
            image = download_image(self._client, result, path, max_bytes)
            if isinstance(file, (str, os.PathLike)):
                shutil.copyfile(path, file)
            else:
                with path.open("rb") as captured:
                    shutil.copyfileobj(captured, file)
            return image

    def read_image(self, result: Any, number: Any = None, *, aws_conn_id: str | None = "aws_default") -> bytes:
        """Return a stored image's file, verified by its SHA-256, as for an attachment of a mail.

        Reads the store only: neither the API nor its key is used.

        :param result: What a FLUX operator returned, a list of that (of a mapped task), or an ImageResult.
        :param number: Which image of a batch, or result of a list: its position from 0, or its line of the batch's
            manifest. Not needed if there is only one.
        :param aws_conn_id: Connection of the amazon provider, for ``s3://``, as in the operators.
        :raises ValueError: if they do not name one image that is stored.
        :raises FluxBadImageError: if the file is missing or not the one that the task stored.
        :raises FluxStoreError: if the store is unreachable.
        :raises FluxStoreConfigurationError: if it cannot be read with this connection.
        """
        from airflow_provider_flux.images.stored import StoredImage

        with self._errors():
            return StoredImage.of(result, number, aws_conn_id).read()

    def presigned_url(
        self,
        result: Any,
        expires: float | str | timedelta = timedelta(hours=1),
        number: Any = None,
        *,
        aws_conn_id: str | None = "aws_default",
    ) -> str:
        """Return an address that shows a stored image to everybody who has it, as for a message to people without a
        login; :func:`.image_url` returns the one of Airflow's users.

        The URL is a secret until it expires: it is masked in logs, and should not be returned from a task, since
        Airflow would keep it. It ends with the credentials that sign it, if those are temporary (a role's). S3 has such
        URLs, and so do stores whose ObjectStoragePath can sign; local files have none.

        :param result: As in :meth:`read_image`.
        :param expires: Seconds or timedelta after which the URL ends; S3 allows 7 days at most.
        :param number: As in :meth:`read_image`.
        :param aws_conn_id: Connection of the amazon provider, for ``s3://``, as in the operators.
        :raises ValueError: if the arguments are invalid, or do not name one image that is stored.
        :raises FluxBadImageError: if the file is missing.
        :raises FluxStoreError: if the store is unreachable.
        :raises FluxStoreConfigurationError: if the store has no such URLs, or not with this connection.
        """
        from airflow_provider_flux.images.stored import StoredImage

        with self._errors():
            url = StoredImage.of(result, number, aws_conn_id).presigned_url(_parse_expires(expires))
        _mask_signature(url)
        return url

    def credits(self) -> float:
        """Return the credits left on the account.

        Only Black Forest Labs returns them; CometAPI does so at another host, with the key in the URL.

        :raises FluxConfigurationError: for another gateway.
        :raises FluxError: if the API returned no state of it.
        """
        with self._errors():
            if self.endpoint.gateway != BFL:
                raise FluxConfigurationError(
                    f"The gateway {self.endpoint.gateway} does not return the remaining credits."
                )
            return self._client.credits()

    @classmethod
    async def get_endpoint_async(cls, flux_conn_id: str) -> Endpoint:
        """Return the endpoint of a connection, from an event loop.

        One lookup serves all callers on one loop for ``ENDPOINT_TTL`` seconds.

        :raises FluxConfigurationError: if the connection does not exist or is invalid.
        """
        looked_up = _looked_up.setdefault(asyncio.get_running_loop(), {}).setdefault(flux_conn_id, _LookedUp())
        async with looked_up.lock:
            if looked_up.endpoint is None or time.monotonic() >= looked_up.expires:
                with _missing_explained(flux_conn_id):
                    looked_up.endpoint = _endpoint(await get_async_connection(flux_conn_id))
                looked_up.expires = time.monotonic() + ENDPOINT_TTL
            return looked_up.endpoint

    async def get_result_async(self, job: Job | dict[str, Any] | str) -> Result:
        """Return the current state of ``job``, from an event loop; see :meth:`get_result`."""
        from airflow_provider_flux.client.client import shared_client

        with self._errors():
            async with shared_client(await self.get_endpoint_async(self.flux_conn_id)) as client:
                return await client.get_result(job_from(job))

    async def wait_async(
        self, job: Job | dict[str, Any] | str, timeout: float = 600, poll_interval: float | None = None
    ) -> Result:
        """Wait until ``job`` is ready, from an event loop; see :meth:`wait`.

        All waits on one loop with one connection share an HTTP client.
        """
        from airflow_provider_flux.client.client import shared_client

        with self._errors():
            async with shared_client(await self.get_endpoint_async(self.flux_conn_id)) as client:
                return await client.wait(job_from(job), time.time() + timeout, poll_interval)

    def test_connection(self) -> tuple[bool, str]:
        """Return whether the API is reachable and accepts the key, and a sentence; free, and never shows the key."""
        key, self.log_errors = "", False
        try:
            endpoint = self.endpoint
            if endpoint.api_key == _MASK:
                return False, _MASKED
            self.check_budget()
            key, address = endpoint.api_key, f"{endpoint.base_url} ({endpoint.gateway})"
            try:
                return True, f"{address}: {self._client.check()}"
            except FluxAuthenticationError as error:
                message = f"{address} responds, but the key is invalid: {error.message}" if key else error.message
            except FluxCreditsError as error:
                return True, f"{address}: The key is valid. {error.message}"
            except FluxServiceError as error:
                message = f"{address} is unreachable or fails: {error.message}"
            except FluxError as error:
                message = f"{address} is not a usable FLUX API: {error.message}"
        except FluxConfigurationError as error:
            message = str(error)
        except Exception as error:
            message = f"{type(error).__name__}: {error}"
        return False, message.replace(key, "***") if key else message

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the connection form to Airflow 3.1; later ones read it from the provider info."""
        from airflow_provider_flux.get_provider_info import UI_FIELD_BEHAVIOUR

        return {
            "hidden_fields": [*UI_FIELD_BEHAVIOUR["hidden-fields"], "port"],  # of use to Airflow 3.3 alone
            "relabeling": UI_FIELD_BEHAVIOUR["relabeling"],
            "placeholders": UI_FIELD_BEHAVIOUR["placeholders"],
        }

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the form's extra fields to Airflow 3.1; later ones read them from the provider info."""
        from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
        from wtforms import IntegerField, StringField
        from wtforms.validators import Optional, any_of

        from airflow_provider_flux.get_provider_info import CONN_FIELDS

        gateway, timeout = CONN_FIELDS["gateway"], CONN_FIELDS["timeout"]

        def text(name: str) -> Any:
            field = CONN_FIELDS[name]
            return StringField(
                field["label"],
                validators=[Optional()],
                description=field["description"],
                widget=BS3TextFieldWidget(),
            )

        return {
            "gateway": StringField(
                gateway["label"],
                validators=[Optional(), any_of(gateway["schema"]["enum"])],
                description=gateway["description"],
                widget=BS3TextFieldWidget(),
            ),
            "timeout": IntegerField(
                timeout["label"],
                validators=[Optional()],
                description=timeout["description"],
                default=timeout["schema"]["default"],
                widget=BS3TextFieldWidget(),
            ),
            **{name: text(name) for name in ("allowed_delivery_networks", "budget", "budget_uri")},
        }


@contextmanager
def _missing_explained(conn_id: str) -> Iterator[None]:
    """Replace Airflow's error for a missing connection by one that is not retried and says what to create."""
    try:
        yield
    except AirflowNotFoundException:
        raise FluxConfigurationError(f"There is no Airflow connection {conn_id!r}. {_how_to_create(conn_id)}") from None


def _how_to_create(conn_id: str) -> str:
    command = (
        f"airflow connections add {shlex.quote(conn_id)} --conn-type {FluxHook.conn_type} --conn-password <API key>"
    )
    return (
        f"Create one of type {FluxHook.conn_type!r} with the API key as its password, in Airflow's UI (Admin, "
        f"Connections) or with: {command}"
    )


def _parse_expires(expires: Any) -> float:
    try:
        return parse_seconds("expires", expires, minimum=1)
    except FluxBadRequestError as error:
        raise ValueError(error.message) from None


def _mask_signature(url: str) -> None:
    """Mask what makes a URL a secret in all logs, in whatever encoding a log shows it."""
    query = urlsplit(url).query
    for secret in (query, *(value for _, value in parse_qsl(query) if len(value) >= _SHORTEST_SIGNATURE)):
        mask_secret(secret)


def _endpoint(connection: Connection) -> Endpoint:
    # Before anything of it is used: the password of another service must not be sent to this one.
    if connection.conn_type not in (None, "", FluxHook.conn_type):
        usual = FluxHook.default_conn_name
        instead = "Delete it first." if connection.conn_id == usual else "Name another one in flux_conn_id."
        raise FluxConfigurationError(
            f"The Airflow connection {connection.conn_id!r} is of type {connection.conn_type!r}, not "
            f"{FluxHook.conn_type!r}. {instead} {_how_to_create(usual)}"
        )
    extra = _extra(connection)
    return make_endpoint(
        _base_url(connection),
        connection.password,
        extra.get("gateway"),
        extra.get("timeout"),
        extra.get("allowed_delivery_networks"),
    )


def _extra(connection: Connection) -> dict[str, Any]:
    # Not extra_dejson: it masks secrets through a call that may deadlock a triggerer before Airflow 3.3.2.
    try:
        extra = json.loads(connection.extra or "{}")
    except ValueError:
        extra = None
    if not isinstance(extra, dict):
        raise FluxConfigurationError(f"The extra of connection {connection.conn_id!r} is not a JSON object.")
    return extra


def _base_url(connection: Connection) -> str | None:
    host = (connection.host or "").strip()
    port = f":{connection.port}" if connection.port else ""
    if not host:
        return None
    if "://" not in host:
        host = f"{connection.schema or 'https'}://{host}"
    scheme, _, rest = host.partition("://")
    name, slash, path = rest.partition("/")
    return f"{scheme}://{name}{'' if ':' in name.rpartition(']')[2] else port}{slash}{path}"
