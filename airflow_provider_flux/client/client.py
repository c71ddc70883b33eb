"""FluxClient and AsyncFluxClient: the FLUX API over HTTP. The only file that imports httpx."""

from __future__ import annotations

import asyncio
import contextlib
import email.utils
import functools
import json
import logging
import math
import os
import random
import re
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore  # httpx's own; its interface for the network is where an address can be checked and kept
import httpx
from httpx_aiohttp import HttpxAiohttpClient

from airflow_provider_flux import __version__
from airflow_provider_flux.client.catalogue.validation import build_request, unknown_fields
from airflow_provider_flux.client.estimator import estimator_for
from airflow_provider_flux.client.gateways import BFL, Endpoint
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.polling import Poller
from airflow_provider_flux.client.responses import (
    ApiResponse,
    JobState,
    Result,
    quoted,
    read_refusal,
    read_result,
    read_submission,
)
from airflow_provider_flux.client.url_safety import (
    SETTING,
    Network,
    RefusedAddressError,
    example,
    image_label,
    is_data,
    look_up,
    read_data,
    refusal,
    resolved,
    same_origin,
)
from airflow_provider_flux.exceptions import (
    FluxAuthenticationError,
    FluxBadImageError,
    FluxConfigurationError,
    FluxError,
    FluxImageExpiredError,
    FluxRateLimitError,
    FluxServiceError,
    FluxUncertainSubmitError,
    job_context,
)

log = logging.getLogger(__name__)

SUBMIT_PATIENCE = 60.0
"""Seconds for which a submit that was surely not accepted (429, 503, no connection) is sent again."""
FETCH_PATIENCE = 300.0
"""Seconds that fetching one image may take: half of a link's life, so that there is time for another attempt."""
TICK = 0.1
"""Seconds; polls of many jobs that are due within one of these go together."""
MAX_REDIRECTS = 3
MAX_ANSWER = 32 * 1024 * 1024
"""Largest JSON answer that is read, in bytes: it may hold the image itself."""
USER_AGENT = f"airflow-provider-flux/{__version__}"
# A triggerer's full capacity may poll at once (aiohttp would else allow 100). httpx forgets idle connections
# after 5 s, which is shorter than a poll interval.
_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=60.0)
_NEVER_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.PoolTimeout)
_UNUSABLE = (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError)
_NOT_QUEUED = (FluxUncertainSubmitError, FluxRateLimitError)
# No job has this id, so asking for it costs nothing and still needs the right key.
_NO_JOB = Job(id="00000000-0000-0000-0000-000000000000")

_in_request: ContextVar[bool] = ContextVar("flux_request", default=False)


class _Quiet(logging.Filter):
    """Drops what the HTTP library logs about our requests: a line a poll, and signed URLs in clear text.

    Requests that others make with the same library are still logged.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        return not _in_request.get()


for _name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy"):
    logging.getLogger(_name).addFilter(_Quiet())


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    token = _in_request.set(True)
    try:
        yield
    finally:
        _in_request.reset(token)


CA_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE")
"""Environment variables that name the CAs to trust, those that httpx reads first, then those of requests."""


def ssl_context() -> ssl.SSLContext:
    """Return this process's TLS context; building one takes 20 ms, so it is built once.

    :raises FluxConfigurationError: if the environment names a CA file that cannot be used.
    """
    return _ssl_context(*_ca_source())


def _ca_source() -> tuple[str, str]:
    return next(((name, path) for name in CA_VARIABLES if (path := os.environ.get(name))), ("", ""))


@functools.cache
def _ssl_context(name: str, path: str) -> ssl.SSLContext:
    if not path:
        return httpx.create_ssl_context(trust_env=False)
    try:
        if any(map(os.path.isdir, path.split(os.pathsep))):  # OpenSSL takes several
            return ssl.create_default_context(capath=path)
        return ssl.create_default_context(cafile=path)
    except OSError as error:
        raise FluxConfigurationError(
            f"The environment variable {name} names {path!r}, which cannot be read as a file or folder of CA "
            f"certificates ({error.strerror or error})."
        ) from error


def _options(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "verify": ssl_context(),
        "timeout": _timeout(endpoint),
        "limits": _LIMITS,
        "headers": {"User-Agent": USER_AGENT},
    }


@contextlib.contextmanager
def _proxies_understood() -> Iterator[None]:
    """Name the cause if httpx cannot use the proxy that the environment names."""
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        # What InvalidURL quotes may be part of the proxy's password.
        why = type(error).__name__ if isinstance(error, httpx.InvalidURL) else error
        raise FluxConfigurationError(
            f"The proxy that HTTPS_PROXY, HTTP_PROXY or ALL_PROXY names cannot be used ({why})."
        ) from error


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to the very address that was checked: a name that is looked up twice may lead to two places."""

    def __init__(self, backend: httpcore.NetworkBackend, networks: tuple[Network, ...]) -> None:
        self._backend = backend
        self._networks = networks

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        try:
            addresses = look_up(host, port, self._networks)
        except OSError as error:
            raise httpcore.ConnectError(f"{host!r} does not resolve: {error.strerror or error}") from error
        problem: Exception = httpcore.ConnectError(f"{host!r} has no address")
        for address in addresses:
            try:
                return self._backend.connect_tcp(address, port, *args, **kwargs)
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
        raise problem


class _DeliveryClient(httpx.Client):
    """Fetches from hosts that the API names. Behind a proxy, httpx connects to the proxy, which looks names up."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._networks = endpoint.delivery_networks
        super().__init__(**_options(endpoint))

    def _init_transport(self, *args: Any, **kwargs: Any) -> httpx.BaseTransport:
        transport = super()._init_transport(*args, **kwargs)
        assert isinstance(transport, httpx.HTTPTransport)
        pool = transport._pool
        pool._network_backend = _CheckedBackend(pool._network_backend, self._networks)
        return transport

    def goes_direct(self, host: str) -> bool:
        """Tell whether ``host`` is connected to without a proxy."""
        return self._transport_for_url(httpx.URL(f"https://{host}/")) is self._transport


def _timeout(endpoint: Endpoint) -> httpx.Timeout:
    return httpx.Timeout(endpoint.timeout, connect=endpoint.connect_timeout)


def _capped(chunks: Iterable[bytes]) -> bytes:
    """Join the pieces of an answer of reasonable size; a worker's or a triggerer's memory is no place for others."""
    body = bytearray()
    for chunk in chunks:
        _grow(body, chunk)
    return bytes(body)


def _grow(body: bytearray, chunk: bytes) -> None:
    body += chunk
    if len(body) > MAX_ANSWER:
        raise FluxServiceError(f"The FLUX API gave an answer of more than {MAX_ANSWER} bytes.")


def _until(ends: float, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Pass the pieces of an answer on, for so long: other processes count on a submit to be over then."""
    for chunk in chunks:
        yield chunk
        if time.monotonic() > ends:
            raise httpx.ReadTimeout("the answer came too slowly")


def _answer(response: httpx.Response, endpoint: Endpoint, body: bytes) -> ApiResponse:
    return ApiResponse(
        code=response.status_code,
        # Some servers say which key they refuse; what they say ends in logs.
        body=body.replace(endpoint.api_key.encode(), b"***") if len(endpoint.api_key) > 4 else body,
        content_type=response.headers.get("content-type", ""),
        retry_after=_seconds(response.headers.get("retry-after")),
    )


def _seconds(retry_after: str | None) -> float | None:
    if not retry_after:
        return None
    try:
        seconds = float(retry_after)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, min(seconds, 600.0)) if seconds == seconds else None


def _problem(error: Exception) -> FluxError:
    """Say what went wrong on the way to the API, without its URL."""
    if isinstance(error, _UNUSABLE):
        return FluxConfigurationError(f"The FLUX API's address cannot be used ({error}).")
    where = f"The FLUX API{_at(error)}"
    if why := _distrust(error):
        return FluxConfigurationError(f"{where} cannot be trusted: {why}.")
    what = "did not answer in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
    return FluxServiceError(f"{where} {what} ({type(error).__name__}: {error}).")


def _at(error: Exception) -> str:
    # An error that was raised outside of a request has none, and says so with an error.
    with contextlib.suppress(RuntimeError, AttributeError):
        return f" at {error.request.url.host}"  # type: ignore[attr-defined] # of httpx.RequestError alone
    return ""


def _distrust(error: BaseException | None) -> str | None:
    """Say why a server's certificate was refused, and what sets that right; None if something else went wrong."""
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    if error is None:
        return None
    error = getattr(error, "certificate_error", error)  # aiohttp wraps it
    name, path = _ca_source()
    used = f"the CAs of {name}={path}" if name else "certifi's list of CAs"
    return (
        f"its certificate was refused ({getattr(error, 'verify_message', '') or error}). Checked with {used}; if a "
        "proxy or a private CA signed it, SSL_CERT_FILE or REQUESTS_CA_BUNDLE must name a file that holds that CA"
    )


@contextlib.contextmanager
def _failed_poll(job: Job, url: str) -> Iterator[None]:
    """Turn whatever error a poll meets into the one that says so: it names the job and the host that was asked."""
    try:
        yield
    except FluxError as error:
        what = f"{urlsplit(url).hostname}: {error.message}"
        raise FluxServiceError(what, job_id=job.id, retry_after=error.retry_after) from error.__cause__


def _poller(endpoint: Endpoint, job: Job, deadline: float, interval: float | None, quiet: bool = False) -> Poller:
    return Poller(job, deadline, interval, time.time(), estimator_for(endpoint.base_url, job.model), quiet)


class FluxClient:
    """The FLUX API for a worker; blocks while it waits.

    :param endpoint: Where the API is and how to speak to it.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._http = self._open()
        with _proxies_understood():
            self._delivery = _DeliveryClient(endpoint)
        self._told: set[str] = set()
        self._looked_up = False

    def _open(self) -> httpx.Client:
        with _proxies_understood():
            return httpx.Client(**_options(self.endpoint))

    def __enter__(self) -> FluxClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._delivery.close()

    def submit(
        self,
        model: str,
        parameters: Mapping[str, Any],
        patience: float = SUBMIT_PATIENCE,
        strict: bool = False,
        wait_for_capacity: bool = True,
        before_request: Callable[[], None] = lambda: None,
    ) -> Job:
        """Submit a paid job.

        The request is sent again only where it cannot have been accepted: HTTP 429, HTTP 503, no connection.

        :param model: The model's name, such as ``"flux-pro-1.1"``.
        :param parameters: The request's fields; unset and empty ones are not sent.
        :param patience: Seconds for which it is sent again.
        :param strict: Refuse a model or parameter that is not known here, rather than send it with a warning.
        :param wait_for_capacity: Whether to resend it, too, while the account is at its limit of jobs (HTTP 429).
        :param before_request: Called right before each time that it is sent; what it raises ends the submit.
        :raises FluxBadRequestError: before anything is sent if a value cannot be used, or by the API.
        :raises FluxUncertainSubmitError: if the answer was lost, so that a job may exist.
        :raises FluxError: any other outcome; nothing was paid.

        Source: https://apidoc.cometapi.com/api/image/flux/flux-generate-image
        """
        body = build_request(model, parameters, self.endpoint.gateway, strict)
        self._check_key()
        unknown = "; ".join(unknown_fields(model, body))
        if unknown and unknown not in self._told:
            self._told.add(unknown)
            log.warning("Sent without validation: %s.", unknown)
        self._foresee()
        give_up = time.monotonic() + patience
        for attempt in range(1_000_000):
            before_request()
            try:
                return self._submit_once(model, body)
            except (FluxRateLimitError, FluxServiceError) as error:
                wait = max(error.retry_after or 0.0, min(15.0, 2.0**attempt) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                hopeless = isinstance(error, FluxUncertainSubmitError if wait_for_capacity else _NOT_QUEUED)
                if hopeless or time.monotonic() + wait > give_up:
                    raise
                log.warning("Not accepted, sending again in %.1f s: %s", wait, error.message)
                time.sleep(wait)
        raise AssertionError("unreachable")

    def _foresee(self) -> None:
        """Warn, before money is spent, if names lead here to addresses that no image would be fetched from."""
        if self._looked_up:
            return
        self._looked_up = True
        for host in filter(self._delivery.goes_direct, self.endpoint.names_to_look_up()):
            with contextlib.suppress(OSError):
                try:
                    look_up(host, 443, self.endpoint.delivery_networks)
                except RefusedAddressError as error:
                    log.warning(
                        "%s. An image whose host has such an address, too, is paid for and not fetched: if this is "
                        "how your network reaches it (fake-IP DNS, split DNS), add the network%s to %s in the extra "
                        "of the Airflow connection.",
                        error,
                        example(error.address),
                        SETTING,
                    )
                    return

    def _submit_once(self, model: str, body: dict[str, Any]) -> Job:
        try:
            # A connection of its own: one kept alive may be dropped by the server just as the request
            # goes out, and then nobody knows whether it was accepted.
            url, ends = self.endpoint.submit_url(model), time.monotonic() + self.endpoint.submit_seconds
            with (
                _quietly(),
                self._open() as http,
                http.stream("POST", url, json=body, headers=self.endpoint.auth_headers) as response,
            ):
                content = _capped(_until(ends, response.iter_bytes()))
        except (*_NEVER_SENT, *_UNUSABLE) as error:
            raise _problem(error) from error
        except httpx.HTTPError as error:
            raise FluxUncertainSubmitError(
                f"The submit was sent but its answer was lost ({type(error).__name__}: {error})."
            ) from error
        if secret := str(body.get("webhook_secret") or ""):
            content = content.replace(secret.encode(), b"***")
        answer = _answer(response, self.endpoint, content)
        return read_submission(answer, model, self.endpoint, time.time())

    def _check_key(self) -> None:
        key = self.endpoint.api_key
        if not key or not key.isascii() or not key.isprintable():
            kind = "holds characters that no key has" if key else "is empty"
            raise FluxAuthenticationError(f"The API key {kind}.")

    def get_result(self, job: Job) -> Result:
        """Ask once for the state of ``job``.

        :raises FluxServiceError: if the answer is not about the job; asking again can help.
        :raises FluxAuthenticationError: if there is no key to ask with.

        Source: https://apidoc.cometapi.com/api/image/flux/flux-query
        """
        with job_context(job.id):
            self._check_key()
        return self._get_result(job, self.endpoint.result_url(job))

    def _get_result(self, job: Job, url: str) -> Result:
        with _failed_poll(job, url):
            return read_result(self._ask(url), job)

    def _ask(self, url: str) -> ApiResponse:
        try:
            with _quietly(), self._http.stream("GET", url, headers=self.endpoint.auth_headers) as response:
                return _answer(response, self.endpoint, _capped(response.iter_bytes()))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _problem(error) from error

    def wait(self, job: Job, deadline: float, interval: float | None = None) -> Result:
        """Poll until ``job`` is ready.

        :param deadline: Unix time in seconds at which waiting ends; at least one poll is made.
        :param interval: Seconds between polls; default: from when such jobs usually finish.
        Only an answer about the job ends the wait; any other one is a poll that failed, and is made again.

        :raises FluxTimeoutError: at the deadline; waiting again goes on with the same job.
        :raises FluxError: if the job failed, was moderated, or is not known.
        """
        poller = _poller(self.endpoint, job, deadline, interval)
        with job_context(job.id):
            self._check_key()
        while True:
            time.sleep(poller.delay(time.time()))
            asked_at = time.time()
            answer: Result | FluxServiceError
            try:
                answer = self._get_result(job, self.endpoint.result_url(job, poller.asks_base_host))
            except FluxServiceError as error:
                answer = error
            if (done := poller.feed(answer, time.time(), asked_at)) is not None:
                return done

    @contextlib.contextmanager
    def fetch(self, url: str, job_id: str | None) -> Iterator[Delivery]:
        """Open the delivery URL of an image, without the key.

        One without a host is looked for at the API; a ``data:`` URL holds the image itself.

        :raises FluxBadImageError: if it is not to be fetched, or the answer does not hold a whole image.
        :raises FluxImageExpiredError: if the URL has expired.
        :raises FluxServiceError: if the delivery host cannot be reached or fails.
        """
        if is_data(url):
            yield _from_data(url, job_id)
            return
        with contextlib.ExitStack() as stack:
            stack.enter_context(_quietly())
            try:
                response = self._follow(resolved(self.endpoint.base_url, url), job_id, stack)
                chunks = _in_time(response.iter_bytes(), job_id)
                yield Delivery(response.headers.get("content-type", ""), chunks)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                raise FluxServiceError(
                    f"Fetching {image_label(job_id)} failed{_at(error)} ({_why(error)}).",
                    job_id=job_id,
                    billing=FluxBadImageError.billing_note(job_id),
                ) from error

    def _follow(self, url: str, job_id: str | None, stack: contextlib.ExitStack) -> httpx.Response:
        for _ in range(MAX_REDIRECTS + 1):
            self.endpoint.check_download_url(url, job_id)
            http = self._http if same_origin(url, self.endpoint.base_url) else self._delivery
            try:
                response = stack.enter_context(http.stream("GET", url))
            except RefusedAddressError as error:
                raise refusal(error, job_id) from None
            location = response.headers.get("location")
            if not (300 <= response.status_code < 400 and location):
                _check_delivered(response, job_id)
                return response
            url = urljoin(url, location)
        raise FluxBadImageError(f"The URL of {image_label(job_id)} redirects without end.", job_id=job_id)

    def check(self) -> str:
        """Find out, for nothing, whether the API is there and takes the key; return one sentence.

        :raises FluxError: saying which of the two it is not.
        """
        self._check_key()
        if self.endpoint.gateway == BFL:
            credits = self.credits()
            return f"The key is valid; {credits:g} credits are left."
        answer = self._ask(self.endpoint.result_url(_NO_JOB))
        try:
            result = read_result(answer, _NO_JOB)
        except FluxServiceError:
            error = read_refusal(answer)
            if isinstance(error, FluxRateLimitError):
                return "The API is reachable but rate-limits requests; the key was not verified."
            if answer.code == 404:
                raise FluxConfigurationError(error.message) from None
            raise error from None
        if result.state is not JobState.NOT_FOUND:
            raise FluxConfigurationError(
                "A probe with a non-existent job id did not return 'Task not found', so the key could not be verified "
                f"({quoted(answer)})."
            )
        return "The key is valid (a probe with a non-existent job id returned 'Task not found')."

    def credits(self) -> float:
        """Return the credits left on a Black Forest Labs account.

        :raises FluxError: if the API does not tell.

        Source: https://docs.bfl.ml (``GET /v1/credits``)
        """
        answer = self._ask(f"{self.endpoint.base_url}/v1/credits")
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if math.isfinite(credits := float(json.loads(answer.body)["credits"])):
                return credits
        if 200 <= answer.code < 300:
            raise FluxServiceError(f"The FLUX API does not return the credits left ({quoted(answer)}).")
        raise read_refusal(answer)


@dataclass(frozen=True, slots=True)
class Delivery:
    """An image on its way: the content type that was declared, and the bytes in pieces."""

    content_type: str
    chunks: Iterator[bytes]


def _from_data(url: str, job_id: str | None) -> Delivery:
    try:
        content_type, data = read_data(url)
    except ValueError as error:
        raise FluxBadImageError(
            f"The data: URL that holds {image_label(job_id)} cannot be decoded ({error}).", job_id=job_id
        ) from error
    return Delivery(content_type, iter([data]))


def _why(error: Exception) -> str:
    """Say why a transfer failed; only what the network says, since other errors may quote the signed URL."""
    why = _distrust(error) or (str(error) if isinstance(error, (httpx.NetworkError, httpx.ProxyError)) else "")
    return f"{type(error).__name__}: {why}" if why else type(error).__name__


def _in_time(chunks: Iterator[bytes], job_id: str | None) -> Iterator[bytes]:
    """Pass the pieces on; a host that never pauses for long, and never ends, must not hold a place for ever."""
    give_up = time.monotonic() + FETCH_PATIENCE
    for chunk in chunks:
        yield chunk
        if time.monotonic() > give_up:
            raise FluxServiceError(
                f"Fetching {image_label(job_id)} took longer than {FETCH_PATIENCE:.0f} s.",
                job_id=job_id,
                billing=FluxBadImageError.billing_note(job_id),
            )


def _check_delivered(response: httpx.Response, job_id: str | None) -> None:
    code = response.status_code
    if code in (200, 203):
        return
    if code == 206:
        told = response.headers.get("content-range", "")
        part = re.fullmatch(r"\s*bytes\s+0\s*-\s*(\d+)\s*/\s*(\d+)\s*", told, re.IGNORECASE)
        if part is not None and int(part[1]) + 1 == int(part[2]):
            return
        raise FluxBadImageError(
            f"The delivery host sent only a part of {image_label(job_id)} (HTTP 206, Content-Range: {told[:60]!r}).",
            job_id=job_id,
        )
    if code in (401, 403, 404, 410):
        raise FluxImageExpiredError(f"The URL of {image_label(job_id)} has expired (HTTP {code}).", job_id=job_id)
    if code >= 500 or code in (408, 425, 429):
        raise FluxServiceError(
            f"The delivery host failed for {image_label(job_id)} (HTTP {code}).",
            job_id=job_id,
            billing=FluxBadImageError.billing_note(job_id),
        )
    raise FluxBadImageError(f"The delivery host did not give {image_label(job_id)} (HTTP {code}).", job_id=job_id)


def _together(seconds: float) -> float:
    """Return a little more than ``seconds``, so that the polls of many jobs that are due at nearly one time wake the
    event loop once: that takes a fifth of their CPU time.
    """
    if seconds < 5 * TICK:
        return seconds
    now = time.time()
    return math.ceil((now + seconds) / TICK) * TICK - now


class _AiohttpClient(HttpxAiohttpClient):
    def _init_proxy_transport(self, proxy: httpx.Proxy, *args: Any, **kwargs: Any) -> httpx.AsyncBaseTransport:
        if proxy.url.scheme.startswith("socks"):  # which aiohttp does not speak
            return httpx.AsyncClient._init_proxy_transport(self, proxy, *args, **kwargs)
        return super()._init_proxy_transport(proxy, *args, **kwargs)


class AsyncFluxClient:
    """The FLUX API for an event loop: waits for any number of jobs. It submits nothing.

    Runs httpx on the aiohttp transport: httpx's own pool slows down with concurrency.

    :param endpoint: Where the API is and how to speak to it.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        with _proxies_understood():
            self._http = _AiohttpClient(**_options(endpoint))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get_result(self, job: Job) -> Result:
        """Ask once for the state of ``job``; see :meth:`FluxClient.get_result`."""
        return await self._get_result(job, self._request(job))

    def _request(self, job: Job, base_host: bool = False) -> httpx.Request:
        return self._http.build_request(
            "GET", self.endpoint.result_url(job, base_host), headers=self.endpoint.auth_headers
        )

    async def _get_result(self, job: Job, request: httpx.Request) -> Result:
        with _failed_poll(job, str(request.url)):
            return read_result(await self._ask(request), job)

    async def _ask(self, request: httpx.Request) -> ApiResponse:
        try:
            with _quietly():
                async with contextlib.aclosing(await self._http.send(request, stream=True)) as response:
                    body = bytearray()
                    async for chunk in response.aiter_bytes():
                        _grow(body, chunk)
                    return _answer(response, self.endpoint, bytes(body))
        except FluxError:
            raise
        except Exception as error:
            # The transport lets some errors of aiohttp through unmapped; each is a failed poll, no more.
            raise _problem(error) from error

    async def wait(self, job: Job, deadline: float, interval: float | None = None, quiet: bool = False) -> Result:
        """Poll until ``job`` is ready; see :meth:`FluxClient.wait`.

        :param quiet: Do not log now and then how the job is; for one of many.
        """
        poller = _poller(self.endpoint, job, deadline, interval, quiet)
        request = self._request(job)  # once for all polls: making one is a sixth of the work of a poll
        while True:
            await asyncio.sleep(_together(poller.delay(time.time())))
            asked_at = time.time()
            answer: Result | FluxServiceError
            try:
                asked = self._request(job, base_host=True) if poller.asks_base_host else request
                answer = await self._get_result(job, asked)
            except FluxServiceError as error:
                answer = error
            if (done := poller.feed(answer, time.time(), asked_at)) is not None:
                return done


class _Shared:
    """One client for everybody who waits at the same endpoint on the same loop, closed by the last."""

    def __init__(self, client: AsyncFluxClient) -> None:
        self.client = client
        self.users = 0


_shared: dict[tuple[asyncio.AbstractEventLoop, Endpoint], _Shared] = {}


@contextlib.asynccontextmanager
async def shared_client(endpoint: Endpoint) -> AsyncIterator[AsyncFluxClient]:
    """Share one AsyncFluxClient an event loop and endpoint, so that a thousand triggers open one pool."""
    # Building the TLS context reads files; a thousand other triggers wait on this loop.
    await asyncio.to_thread(ssl_context)
    key = (asyncio.get_running_loop(), endpoint)
    shared = _shared.get(key)
    if shared is None:
        shared = _shared[key] = _Shared(AsyncFluxClient(endpoint))
    shared.users += 1
    try:
        yield shared.client
    finally:
        shared.users -= 1
        if not shared.users:
            _shared.pop(key, None)
            await shared.client.aclose()
