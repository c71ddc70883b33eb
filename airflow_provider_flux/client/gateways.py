"""The two dialects of the FLUX API: paths, auth header, which URL to poll, which URL to fetch from."""

from __future__ import annotations

import contextlib
import ipaddress
import re
import socket
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from airflow_provider_flux.client.errors import FluxConfigurationError, FluxServiceError, FluxUnsafeUrlError
from airflow_provider_flux.client.jobs import Job

COMETAPI = "cometapi"
BFL = "bfl"
BASE_URLS = {COMETAPI: "https://api.cometapi.com", BFL: "https://api.bfl.ai"}

_IMAGE_PATH = re.compile(r"\.(jpe?g|png|webp)$", re.IGNORECASE)
_PREFIX = {COMETAPI: "/flux/v1", BFL: "/v1"}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the FLUX API is, and how to speak to it.

    :param base_url: Scheme and host, perhaps a path, without the API's own path.
    :param api_key: The key; never part of the repr.
    :param gateway: ``"cometapi"`` or ``"bfl"``.
    :param timeout: Seconds that connecting, or a pause within an answer, may take.
    """

    base_url: str
    api_key: str = field(repr=False)
    gateway: str = COMETAPI
    timeout: float = 30.0

    @property
    def auth(self) -> dict[str, str]:
        """The header that carries the key; for requests to this API only."""
        if self.gateway == BFL:
            return {"x-key": self.api_key}
        return {"Authorization": f"Bearer {self.api_key}"}

    @property
    def connect_timeout(self) -> float:
        """Seconds that connecting may take."""
        return min(self.timeout, 10.0)

    @property
    def submit_seconds(self) -> float:
        """Seconds that one submit may take: connecting, sending, and waiting for the answer."""
        return self.connect_timeout + 2 * self.timeout

    def submit_url(self, model: str) -> str:
        """Return the URL that takes a paid job for ``model``."""
        return f"{self.base_url}{_PREFIX[self.gateway]}/{quote(model, safe='')}"

    def result_url(self, job: Job, base_host: bool = False) -> str:
        """Return the URL that returns the state of ``job``.

        :param base_host: Ask the API's base host even if the job has a URL of its own, which fails for a while.

        CometAPI is asked by id at its own address, whatever ``polling_url`` it passed on from upstream
        (https://apidoc.cometapi.com/api/image/flux/flux-query). Black Forest Labs asks for ``polling_url``
        unchanged, since a job lives in one region (https://docs.bfl.ml/api_integration/integration_guidelines).
        """
        if not base_host and self.gateway == BFL and job.polling_url and self._may_poll(job.polling_url):
            return job.polling_url
        return f"{self.base_url}{_PREFIX[self.gateway]}/get_result?id={quote(job.id, safe='')}"

    def job_polling_url(self, polling_url: object) -> str | None:
        """Return ``polling_url`` if this gateway polls it and it may be trusted with the key, else None."""
        if self.gateway == BFL and isinstance(polling_url, str) and self._may_poll(polling_url):
            return polling_url
        return None

    def _may_poll(self, url: str) -> bool:
        try:
            parts = urlsplit(url)
            host = (parts.hostname or "").rstrip(".")
            port = parts.port
        except ValueError:
            return False
        # Some resellers put the image's own URL here once it is finished; that is no place to poll.
        if host.startswith("delivery") or _IMAGE_PATH.search(parts.path) or parts.username or parts.password:
            return False
        if same_origin(url, self.base_url):
            return True
        return parts.scheme == "https" and port in (None, 443) and re.fullmatch(r"([\w-]+\.)*bfl\.ai", host) is not None

    def check_delivery(self, url: str, job_id: str | None) -> None:
        """Refuse a delivery URL that could lead into somebody's own network.

        Allowed is https to a public address, and the API's own origin (an emulator on localhost).

        :raises FluxUnsafeUrlError: naming the host, never the (signed) URL.
        :raises FluxServiceError: if the host's name does not resolve.
        """
        try:
            parts = urlsplit(url)
            host, port = parts.hostname or "", parts.port
        except ValueError:
            parts, host, port = None, "", None
        if parts is not None and same_origin(url, self.base_url):
            return
        if parts is None or not host or parts.scheme != "https" or parts.username or parts.password:
            scheme = parts.scheme if parts is not None else "no"
            raise FluxUnsafeUrlError(
                f"The URL of {fetched(job_id)} was not fetched: it must be https, not {scheme} to {host!r}.",
                job_id=job_id,
            )
        addresses = _addresses(host, port or 443)
        # A name that is found only later may lead anywhere; through a proxy, it is the proxy that looks it up.
        if not addresses and not _has_proxy(host):
            raise FluxServiceError(
                f"Fetching {fetched(job_id)} failed ({host!r} does not resolve).",
                job_id=job_id,
                money=FluxUnsafeUrlError._money(job_id) if job_id else None,
            )
        if not all(map(_is_public, addresses)):
            raise FluxUnsafeUrlError(
                f"The URL of {fetched(job_id)} was not fetched: {host!r} is not a public address.",
                job_id=job_id,
            )


def fetched(job_id: str | None) -> str:
    """Return what is fetched, in words: the image of a job, or an author's own that no job has made."""
    return f"the image of job {job_id}" if job_id else "the input image"


def _addresses(host: str, port: int) -> list[str]:
    with contextlib.suppress(ValueError):
        return [str(ipaddress.ip_address(host))]
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        return []
    return [str(address[0]) for *_, address in found]


def _has_proxy(host: str) -> bool:
    import urllib.request

    proxies = urllib.request.getproxies()
    return ("https" in proxies or "all" in proxies) and not urllib.request.proxy_bypass(host)


def _is_public(address: str) -> bool:
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.scope_id or ip.is_site_local:
            return False
        # A translator on the way would send these on to the IPv4 address that they hold.
        embeds = any(ip in network for network in _IPV4_INSIDE)
        last = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if embeds else None
        ip = last or ip.ipv4_mapped or ip.sixtofour or ip
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)


# NAT64, and "IPv4-compatible".
_IPV4_INSIDE = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))


def same_origin(one: str, other: str) -> bool:
    """Tell whether two URLs have the same scheme, host and port."""
    origin = _origin(one)
    return origin is not None and origin == _origin(other)


def _origin(url: str) -> tuple[str, str, int | None] | None:
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None


def infer_gateway(base_url: str) -> str:
    """Return the dialect spoken at ``base_url``: ``"bfl"`` for Black Forest Labs' hosts, else ``"cometapi"``."""
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:
        host = ""
    return BFL if re.fullmatch(r"(.+\.)?bfl\.(ai|ml)", host) else COMETAPI


def make_endpoint(
    base_url: str | None, api_key: str | None, gateway: str | None = None, timeout: float | str | None = None
) -> Endpoint:
    """Return a checked :class:`Endpoint`.

    :raises FluxConfigurationError: if the URL, the gateway or the timeout cannot be used.
    """
    dialect = str(gateway or "").strip().lower() or infer_gateway(base_url or "")
    if dialect not in _PREFIX:
        raise FluxConfigurationError(f"gateway is {gateway!r}; it must be {COMETAPI!r} or {BFL!r}.")
    url = (base_url or BASE_URLS[dialect]).strip().rstrip("/").removesuffix(_PREFIX[dialect])
    # Before anything that names the URL in an error.
    if "@" in url:
        raise FluxConfigurationError(
            "The base URL holds a user name or password; the key belongs in the password field."
        )
    origin = _origin(url)
    if origin is None or origin[0] not in ("http", "https"):
        raise FluxConfigurationError(f"{url!r} is not a base URL like {BASE_URLS[dialect]}.")
    try:
        seconds = float(timeout) if timeout not in (None, "") else 30.0
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise FluxConfigurationError(f"timeout is {timeout!r}; it must be a number of seconds above 0.")
    # A key that was pasted with its line end, or whole with "Bearer ", is still the key.
    key = (api_key or "").strip().removeprefix("Bearer ").strip()
    return Endpoint(url, key, dialect, seconds)
