"""FluxClient and AsyncFluxClient: the FLUX API over HTTP. The only file that imports httpx."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import itertools
import logging
import math
import random
import ssl
import time
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore  # httpx's own dependency; its network interface is where an address can be checked and kept
import httpx

from airflow_provider_flux import __version__
from airflow_provider_flux.client.api_response import ApiResponse
from airflow_provider_flux.client.catalogue.notices import notices
from airflow_provider_flux.client.catalogue.validation import build_request, unknown_fields
from airflow_provider_flux.client.delivery import (
    Delivery,
    check_delivery,
    delivery_error,
    delivery_from_data_url,
    limit_duration,
)
from airflow_provider_flux.client.estimator import estimator_for
from airflow_provider_flux.client.gateways import BFL, Endpoint
from airflow_provider_flux.client.http_logging import requests_not_logged
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.polling import Poller, coalesced
from airflow_provider_flux.client.response_text import describe_response
from airflow_provider_flux.client.responses import JobState, Result, read_refusal, read_result, read_submission
from airflow_provider_flux.client.tls import ca_source, certificate_problem, load_ca
from airflow_provider_flux.client.url_safety import (
    ForbiddenAddressError,
    Network,
    absolute_url,
    delivery_warning,
    image_label,
    is_data_url,
    resolve_host,
    same_origin,
    unsafe_url_error,
)
from airflow_provider_flux.exceptions import (
    FluxAuthenticationError,
    FluxBadImageError,
    FluxConfigurationError,
    FluxError,
    FluxRateLimitError,
    FluxServiceError,
    FluxUncertainSubmitError,
    job_context,
)

log = logging.getLogger(__name__)

SUBMIT_RETRY_TIMEOUT = 60.0
"""Seconds for which a submit that was certainly not accepted (HTTP 429, 503, no connection) is retried."""
MAX_SUBMIT_BACKOFF = 15.0
"""Longest delay in seconds before such a retry, unless a Retry-After asks for more."""
MAX_REDIRECTS = 3
MAX_RESPONSE_BYTES = 32 * 1024 * 1024
"""Largest JSON response that is read, in bytes; it may contain the image itself."""
USER_AGENT = f"airflow-provider-flux/{__version__}"
# All of a triggerer's capacity may poll at once, and aiohttp's default is 100. httpx closes idle connections after
# 5 s by default, which is shorter than a poll interval.
_LIMITS = httpx.Limits(max_connections=1000, max_keepalive_connections=100, keepalive_expiry=60.0)
_NOT_SENT_ERRORS = (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError, httpx.PoolTimeout)
_INVALID_ADDRESS_ERRORS = (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError)
# No job has this id, so polling it is free and still requires a valid key.
_NON_EXISTENT_JOB = Job(id="00000000-0000-0000-0000-000000000000")


def ssl_context() -> ssl.SSLContext:
    """Return this process's TLS context; building one takes 20 ms, so it is built once.

    :raises FluxConfigurationError: if the environment names a CA file that cannot be read.
    """
    return _ssl_context(*ca_source())


@functools.cache
def _ssl_context(variable: str, path: str) -> ssl.SSLContext:
    return load_ca(variable, path) if path else httpx.create_ssl_context(trust_env=False)


def _client_options(endpoint: Endpoint) -> dict[str, Any]:
    return {
        "verify": ssl_context(),
        "timeout": httpx.Timeout(endpoint.timeout, connect=endpoint.connect_timeout),
        "limits": _LIMITS,
        "headers": {"User-Agent": USER_AGENT},
    }


@contextlib.contextmanager
def _proxy_errors() -> Iterator[None]:
    """Name the cause if httpx cannot use the proxy that the environment names."""
    try:
        yield
    except (ImportError, ValueError, httpx.InvalidURL) as error:
        # InvalidURL may quote a part of the proxy's password.
        cause = type(error).__name__ if isinstance(error, httpx.InvalidURL) else error
        raise FluxConfigurationError(
            f"The proxy in HTTPS_PROXY, HTTP_PROXY or ALL_PROXY cannot be used ({cause})."
        ) from error


class _CheckedBackend(httpcore.NetworkBackend):
    """Connects to the very address that was checked: a second look-up of the name may return another one."""

    def __init__(self, backend: httpcore.NetworkBackend, networks: tuple[Network, ...]) -> None:
        self._backend = backend
        self._networks = networks

    def connect_tcp(self, host: str, port: int, *args: Any, **kwargs: Any) -> httpcore.NetworkStream:
        try:
            addresses = resolve_host(host, port, self._networks)
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
    """Downloads from hosts that the API names. Behind a proxy, httpx connects to the proxy, which resolves names."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._networks = endpoint.delivery_networks
        super().__init__(**_client_options(endpoint))

    def _init_transport(self, *args: Any, **kwargs: Any) -> httpx.BaseTransport:
        transport = super()._init_transport(*args, **kwargs)
        assert isinstance(transport, httpx.HTTPTransport)
        pool = transport._pool
        pool._network_backend = _CheckedBackend(pool._network_backend, self._networks)
        return transport

    def connects_directly(self, host: str) -> bool:
        """Return whether ``host`` is connected to without a proxy."""
        return self._transport_for_url(httpx.URL(f"https://{host}/")) is self._transport


def _read_limited(chunks: Iterable[bytes]) -> bytes:
    body = bytearray()
    for chunk in chunks:
        _append_limited(body, chunk)
    return bytes(body)


def _append_limited(body: bytearray, chunk: bytes) -> None:
    """Append a piece of a response, whose size must not exhaust a worker's or a triggerer's memory."""
    body += chunk
    if len(body) > MAX_RESPONSE_BYTES:
        raise FluxServiceError(f"The FLUX API returned a response of more than {MAX_RESPONSE_BYTES} bytes.")


def _until(deadline: float, chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the pieces of a response until ``deadline``: other processes rely on the end of a submit by then."""
    for chunk in chunks:
        yield chunk
        if time.monotonic() > deadline:
            raise httpx.ReadTimeout("the response was too slow")


def _api_response(response: httpx.Response, body: bytes, endpoint: Endpoint) -> ApiResponse:
    return ApiResponse.from_http(response.status_code, response.headers, body, endpoint.api_key)


def _request_error(error: Exception) -> FluxError:
    """Return the error for a request that got no response, without its URL."""
    if isinstance(error, _INVALID_ADDRESS_ERRORS):
        return FluxConfigurationError(f"The FLUX API's address is invalid ({error}).")
    api = f"The FLUX API{_at_host(error)}"
    if problem := certificate_problem(error):
        return FluxConfigurationError(f"{api} cannot be trusted: {problem}.")
    problem = "did not respond in time" if isinstance(error, httpx.TimeoutException) else "cannot be reached"
    return FluxServiceError(f"{api} {problem} ({type(error).__name__}: {error}).")


def _at_host(error: Exception) -> str:
    if isinstance(error, httpx.RequestError):
        # httpx raises RuntimeError if the error does not belong to a request.
        with contextlib.suppress(RuntimeError):
            return f" at {error.request.url.netloc.decode()}"
    return ""


def _download_cause(error: Exception) -> str:
    """Return why a download failed; only a network error's text, since others may quote the signed URL."""
    is_quotable = isinstance(error, (httpx.NetworkError, httpx.ProxyError))
    text = certificate_problem(error) or (str(error) if is_quotable else "")
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


@contextlib.contextmanager
def _poll_errors(job: Job, url: str) -> Iterator[None]:
    """Raise any error of a poll as a failed poll that names the job and the polled host."""
    try:
        yield
    except FluxError as error:
        message = f"{urlsplit(url).hostname}: {error.message}"
        raise FluxServiceError(message, job_id=job.id, retry_after=error.retry_after) from error.__cause__


def _poller(endpoint: Endpoint, job: Job, deadline: float, interval: float | None, quiet: bool = False) -> Poller:
    return Poller(job, deadline, interval, time.time(), estimator_for(endpoint.base_url, job.model), quiet)


class FluxClient:
    """The FLUX API for a worker; blocks while it waits.

    :param endpoint: Where the API is and which gateway's protocol it uses.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        self._http = self._open()
        # On a fresh connection each: the server may close a kept-alive one just as a paid request is sent, and then it
        # is unknown whether it was accepted.
        self._submits = self._open({"Connection": "close"})
        with _proxy_errors():
            self._delivery = _DeliveryClient(endpoint)
        self._logged_warnings: set[str] = set()
        self._is_delivery_checked = False

    def _open(self, headers: dict[str, str] | None = None) -> httpx.Client:
        options = _client_options(self.endpoint)
        with _proxy_errors():
            return httpx.Client(**{**options, "headers": {**options["headers"], **(headers or {})}})

    def __enter__(self) -> FluxClient:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._http.close()
        self._submits.close()
        self._delivery.close()

    def submit(
        self,
        model: str,
        parameters: Mapping[str, Any],
        retry_timeout: float = SUBMIT_RETRY_TIMEOUT,
        strict: bool = False,
        wait_for_capacity: bool = True,
        before_request: Callable[[], None] = lambda: None,
    ) -> Job:
        """Submit a paid job.

        The request is only retried if it cannot have been accepted: HTTP 429, HTTP 503, no connection.

        :param model: The model's name, such as ``"flux-pro-1.1"``.
        :param parameters: The request's fields; unset and empty ones are not sent.
        :param retry_timeout: Seconds for which it is retried.
        :param strict: Refuse unknown models and parameters instead of sending them with a warning.
        :param wait_for_capacity: Whether to retry while the account is at its limit of jobs (HTTP 429), too.
        :param before_request: Called right before each request; an error that it raises ends the submit.
        :raises FluxBadRequestError: if a value is invalid, before anything is sent, or if the API refuses it.
        :raises FluxUncertainSubmitError: if the response was lost, so a job may exist.
        :raises FluxError: any other failure; nothing was billed.

        Source: https://apidoc.cometapi.com/api/image/flux/flux-generate-image
        """
        body = build_request(model, parameters, self.endpoint.gateway, strict)
        self._check_key()
        self._warn_of_uncertainties(model, body)
        self._warn_of_private_delivery()
        not_retried = FluxUncertainSubmitError if wait_for_capacity else (FluxUncertainSubmitError, FluxRateLimitError)
        deadline = time.monotonic() + retry_timeout
        attempts = itertools.count()
        while True:
            before_request()
            try:
                return self._submit_once(model, body)
            except (FluxRateLimitError, FluxServiceError) as error:
                delay = max(error.retry_after or 0.0, _submit_backoff(next(attempts)))
                if isinstance(error, not_retried) or time.monotonic() + delay > deadline:
                    raise
                log.warning("The submit was not accepted; retrying in %.1f s: %s", delay, error.message)
                time.sleep(delay)

    def _warn_of_uncertainties(self, model: str, body: Mapping[str, Any]) -> None:
        """Warn once of what is sent although it is unknown or only likely to be taken."""
        for prefix, phrases in (
            ("Sent without validation", unknown_fields(model, body)),
            (f"Sent to {model}", notices(model, body)),
        ):
            warning = f"{prefix}: {'; '.join(phrases)}."
            if phrases and warning not in self._logged_warnings:
                self._logged_warnings.add(warning)
                log.warning("%s", warning)

    def _warn_of_private_delivery(self) -> None:
        """Warn once, before anything is billed, if host names here resolve to addresses that are not allowed."""
        if self._is_delivery_checked:
            return
        self._is_delivery_checked = True
        hosts = filter(self._delivery.connects_directly, self.endpoint.probe_hosts())
        if (warning := delivery_warning(hosts, self.endpoint.delivery_networks)) is not None:
            log.warning("%s", warning)

    def _submit_once(self, model: str, body: dict[str, Any]) -> Job:
        try:
            url, deadline = self.endpoint.submit_url(model), time.monotonic() + self.endpoint.submit_timeout
            with (
                requests_not_logged(),
                self._submits.stream("POST", url, json=body, headers=self.endpoint.auth_headers) as response,
            ):
                content = _read_limited(_until(deadline, response.iter_bytes()))
        except (*_NOT_SENT_ERRORS, *_INVALID_ADDRESS_ERRORS) as error:
            raise _request_error(error) from error
        except httpx.HTTPError as error:
            raise FluxUncertainSubmitError(
                f"The submit was sent but its response was lost ({type(error).__name__}: {error})."
            ) from error
        if secret := str(body.get("webhook_secret") or ""):
            content = content.replace(secret.encode(), b"***")
        return read_submission(_api_response(response, content, self.endpoint), model, self.endpoint, time.time())

    def _check_key(self) -> None:
        key = self.endpoint.api_key
        if not key or not key.isascii() or not key.isprintable():
            problem = "contains invalid characters" if key else "is empty"
            raise FluxAuthenticationError(f"The API key {problem}.")

    def get_result(self, job: Job) -> Result:
        """Poll ``job`` once.

        :raises FluxServiceError: if the response is not about the job; a retry can succeed.
        :raises FluxAuthenticationError: if there is no valid key.

        Source: https://apidoc.cometapi.com/api/image/flux/flux-query
        """
        with job_context(job.id):
            self._check_key()
        return self._poll(job, self.endpoint.result_url(job))

    def _poll(self, job: Job, url: str) -> Result:
        with _poll_errors(job, url):
            return read_result(self._get(url), job)

    def _get(self, url: str) -> ApiResponse:
        try:
            with requests_not_logged(), self._http.stream("GET", url, headers=self.endpoint.auth_headers) as response:
                return _api_response(response, _read_limited(response.iter_bytes()), self.endpoint)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _request_error(error) from error

    def wait(self, job: Job, deadline: float, interval: float | None = None) -> Result:
        """Poll until ``job`` is ready.

        Only a response about the job ends the wait; after any other one, the poll is retried.

        :param deadline: Unix time in seconds at which the wait ends; at least one poll is made.
        :param interval: Seconds between polls; default: by when such jobs usually finish.
        :raises FluxTimeoutError: at the deadline; the job continues and can be waited for again.
        :raises FluxError: if the job failed, was moderated, or is unknown to the API.
        """
        poller = _poller(self.endpoint, job, deadline, interval)
        with job_context(job.id):
            self._check_key()
        while True:
            time.sleep(poller.delay(time.time()))
            polled_at = time.time()
            response: Result | FluxServiceError
            try:
                response = self._poll(job, self.endpoint.result_url(job, poller.polls_base_host))
            except FluxServiceError as error:
                response = error
            if (result := poller.on_response(response, time.time(), polled_at)) is not None:
                return result

    @contextlib.contextmanager
    def fetch(self, url: str, job_id: str | None) -> Iterator[Delivery]:
        """Open the download URL of an image, without the key.

        :param url: Relative to the API's base URL if it has no host; a ``data:`` URL contains the image itself.
        :param job_id: The job of the image; None for an author's input image.
        :raises FluxBadImageError: if the URL is not allowed, or the response is not the whole image.
        :raises FluxImageExpiredError: if the URL has expired.
        :raises FluxServiceError: if the delivery host fails or cannot be reached.
        """
        if is_data_url(url):
            yield delivery_from_data_url(url, job_id)
            return
        with contextlib.ExitStack() as stack:
            stack.enter_context(requests_not_logged())
            try:
                response = self._follow_redirects(absolute_url(self.endpoint.base_url, url), job_id, stack)
                chunks = limit_duration(response.iter_bytes(), job_id)
                yield Delivery(response.headers.get("content-type", ""), chunks)
            except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
                raise delivery_error(
                    f"Downloading {image_label(job_id)} failed{_at_host(error)} ({_download_cause(error)}).", job_id
                ) from error

    def _follow_redirects(self, url: str, job_id: str | None, stack: contextlib.ExitStack) -> httpx.Response:
        for _ in range(MAX_REDIRECTS + 1):
            self.endpoint.check_download_url(url, job_id)
            http = self._http if same_origin(url, self.endpoint.base_url) else self._delivery
            try:
                response = stack.enter_context(http.stream("GET", url))
            except ForbiddenAddressError as error:
                raise unsafe_url_error(error, job_id) from None
            location = response.headers.get("location")
            if not (300 <= response.status_code < 400 and location):
                check_delivery(response.status_code, response.headers.get("content-range", ""), job_id)
                return response
            url = urljoin(url, location)
        raise FluxBadImageError(
            f"The URL of {image_label(job_id)} redirects more than {MAX_REDIRECTS} times.", job_id=job_id
        )

    def check(self) -> str:
        """Check, free of charge, that the API is reachable and accepts the key; return one sentence.

        :raises FluxError: if it is unreachable or refuses the key.
        """
        self._check_key()
        if self.endpoint.gateway == BFL:
            return f"The key is valid; the account has {self.credits():g} credits left."
        response = self._get(self.endpoint.result_url(_NON_EXISTENT_JOB))
        try:
            result = read_result(response, _NON_EXISTENT_JOB)
        except FluxServiceError:
            error = read_refusal(response)
            if isinstance(error, FluxRateLimitError):
                return "The API is reachable but rate-limits requests; the key was not verified."
            if response.status_code == 404:
                raise FluxConfigurationError(error.message) from None
            raise error from None
        if result.state is not JobState.NOT_FOUND:
            raise FluxConfigurationError(
                "A probe with a non-existent job id did not return 'Task not found', so the key could not be verified "
                f"({describe_response(response)})."
            )
        return "The key is valid (a probe with a non-existent job id returned 'Task not found')."

    def credits(self) -> float:
        """Return the credits left on a Black Forest Labs account.

        :raises FluxError: if the API does not return them.

        Source: https://docs.bfl.ml (``GET /v1/credits``)
        """
        response = self._get(f"{self.endpoint.base_url}/v1/credits")
        with contextlib.suppress(ValueError, TypeError, KeyError):
            if math.isfinite(credits := float(response.json()["credits"])):
                return credits
        if response.is_success:
            raise FluxServiceError(f"The FLUX API did not return the credits left ({describe_response(response)}).")
        raise read_refusal(response)


def _submit_backoff(attempt: int) -> float:
    """Return the seconds before the retry of a submit; random, so that tasks that start together spread out."""
    return min(MAX_SUBMIT_BACKOFF, 2.0 ** min(attempt, 4)) * random.uniform(0.5, 1.0)  # noqa: S311 - not a secret


@functools.cache
def _aiohttp_client() -> type[httpx.AsyncClient]:
    """Return the class of the async HTTP client; importing aiohttp takes up to 0.2 s, and only polling needs it."""
    from httpx_aiohttp import HttpxAiohttpClient

    class AiohttpClient(HttpxAiohttpClient):
        def _init_proxy_transport(self, proxy: httpx.Proxy, *args: Any, **kwargs: Any) -> httpx.AsyncBaseTransport:
            if proxy.url.scheme.startswith("socks"):  # not supported by aiohttp
                return httpx.AsyncClient._init_proxy_transport(self, proxy, *args, **kwargs)
            return super()._init_proxy_transport(proxy, *args, **kwargs)

    return AiohttpClient


class AsyncFluxClient:
    """The FLUX API for an event loop: waits for any number of jobs. It cannot submit.

    Runs httpx on the aiohttp transport, because httpx's own pool slows down with concurrency.

    :param endpoint: Where the API is and which gateway's protocol it uses.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self.endpoint = endpoint
        with _proxy_errors():
            self._http = _aiohttp_client()(**_client_options(endpoint))

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def get_result(self, job: Job) -> Result:
        """Poll ``job`` once; see :meth:`FluxClient.get_result`."""
        return await self._poll(job, self._request(job))

    def _request(self, job: Job, base_host: bool = False) -> httpx.Request:
        return self._http.build_request(
            "GET", self.endpoint.result_url(job, base_host), headers=self.endpoint.auth_headers
        )

    async def _poll(self, job: Job, request: httpx.Request) -> Result:
        with _poll_errors(job, str(request.url)):
            return read_result(await self._get(request), job)

    async def _get(self, request: httpx.Request) -> ApiResponse:
        # A poll goes to the transport itself, without httpx's authentication flow, redirects and cookies: with a
        # thousand waits, they take a third of a triggerer's CPU time.
        transport = self._http._transport_for_url(request.url)
        try:
            with requests_not_logged():
                async with contextlib.aclosing(await transport.handle_async_request(request)) as response:
                    body = bytearray()
                    async for chunk in response.aiter_bytes():
                        _append_limited(body, chunk)
                    return _api_response(response, bytes(body), self.endpoint)
        except FluxError:
            raise
        except Exception as error:
            # The transport does not map all of aiohttp's errors; each of them is a failed poll.
            if isinstance(error, httpx.RequestError):
                error.request = request
            raise _request_error(error) from error

    async def wait(self, job: Job, deadline: float, interval: float | None = None, quiet: bool = False) -> Result:
        """Poll until ``job`` is ready; see :meth:`FluxClient.wait`.

        :param quiet: Do not log progress; for one of many jobs.
        """
        poller = _poller(self.endpoint, job, deadline, interval, quiet)
        own_request = self._request(job)  # built once: that is a sixth of the work of a poll
        while True:
            now = time.time()
            await asyncio.sleep(coalesced(poller.delay(now), now))
            polled_at = time.time()
            response: Result | FluxServiceError
            try:
                request = self._request(job, base_host=True) if poller.polls_base_host else own_request
                response = await self._poll(job, request)
            except FluxServiceError as error:
                response = error
            if (result := poller.on_response(response, time.time(), polled_at)) is not None:
                return result


class _SharedClient:
    """One client for all waits at the same endpoint on the same loop; the last one closes it."""

    def __init__(self, client: AsyncFluxClient) -> None:
        self.client = client
        self.users = 0


_shared_clients: dict[tuple[asyncio.AbstractEventLoop, Endpoint], _SharedClient] = {}


@contextlib.asynccontextmanager
async def shared_client(endpoint: Endpoint) -> AsyncIterator[AsyncFluxClient]:
    """Share one AsyncFluxClient per event loop and endpoint, so that a thousand triggers open one pool."""
    # Building the TLS context reads files, and so does an import: both would block all other triggers on this loop.
    await asyncio.to_thread(ssl_context)
    await asyncio.to_thread(_aiohttp_client)
    key = (asyncio.get_running_loop(), endpoint)
    shared = _shared_clients.get(key)
    if shared is None:
        shared = _shared_clients[key] = _SharedClient(AsyncFluxClient(endpoint))
    shared.users += 1
    try:
        yield shared.client
    finally:
        shared.users -= 1
        if not shared.users:
            _shared_clients.pop(key, None)
            await shared.client.aclose()
