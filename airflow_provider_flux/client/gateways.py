"""The two gateways to the FLUX API: paths, authentication header, which URL to poll, which URL to download from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.url_safety import (
    Network,
    check_url,
    is_domain_name,
    origin,
    parse_networks,
    same_origin,
)
from airflow_provider_flux.exceptions import FluxConfigurationError

COMETAPI = "cometapi"
BFL = "bfl"
BASE_URLS = {COMETAPI: "https://api.cometapi.com", BFL: "https://api.bfl.ai"}
DEFAULT_TIMEOUT = 30.0
"""Seconds for which connecting, or a pause within a response, may last by default."""

_IMAGE_PATH = re.compile(r"\.(jpe?g|png|webp)$", re.IGNORECASE)
_PREFIXES = {COMETAPI: "/flux/v1", BFL: "/v1"}
_PUBLIC_API = re.compile(r"(.+\.)?(bfl\.(ai|ml)|cometapi\.com)", re.IGNORECASE)
# Both gateways deliver from hosts with names like this one; the actual host is unknown before the job is ready.
_DELIVERY_HOST = "delivery.eu2.bfl.ai"
# What users paste after the base URL: the API's own path, a part of it, or a whole endpoint. A host may have that name.
_ENDPOINT = r"(/(get_result|credits|flux[\w.-]*(/[\w.-]+)?))?"
_PASTED_PATHS = {
    COMETAPI: re.compile(rf"(?<!/)(/flux|(/flux)?/v1{_ENDPOINT})$", re.IGNORECASE),
    BFL: re.compile(rf"(?<!/)/v1{_ENDPOINT}$", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the FLUX API is, and which gateway's protocol it uses.

    :param base_url: Scheme, host and optional path, without the API's own path.
    :param api_key: The key; never part of the repr.
    :param gateway: ``"cometapi"`` or ``"bfl"``.
    :param timeout: Seconds for which connecting, or a pause within a response, may last.
    :param delivery_networks: Networks that images may be downloaded from although they are not public.
    """

    base_url: str
    api_key: str = field(repr=False)
    gateway: str = COMETAPI
    timeout: float = DEFAULT_TIMEOUT
    delivery_networks: tuple[Network, ...] = ()

    @property
    def auth_headers(self) -> dict[str, str]:
        """The header that carries the key; only for requests to this API."""
        if self.gateway == BFL:
            return {"x-key": self.api_key}
        return {"Authorization": f"Bearer {self.api_key}"}

    @property
    def connect_timeout(self) -> float:
        """Seconds for which connecting may last."""
        return min(self.timeout, 10.0)

    @property
    def submit_timeout(self) -> float:
        """Seconds for which one submit may last: connecting, sending and reading the response."""
        return self.connect_timeout + 2 * self.timeout

    def submit_url(self, model: str) -> str:
        """Return the URL that accepts a paid job for ``model``."""
        return f"{self.base_url}{_PREFIXES[self.gateway]}/{quote(model)}"

    def result_url(self, job: Job, base_host: bool = False) -> str:
        """Return the URL to poll for ``job``.

        CometAPI is polled by id at its own address, whatever ``polling_url`` it forwards from upstream
        (https://apidoc.cometapi.com/api/image/flux/flux-query). Black Forest Labs requires the unchanged
        ``polling_url``, since a job exists in one region (https://docs.bfl.ml/api_integration/integration_guidelines).

        :param base_host: Poll the API's base host even if the job has its own URL, which keeps failing.
        """
        if not base_host and self.gateway == BFL and job.polling_url and self._may_poll(job.polling_url):
            return job.polling_url
        return f"{self.base_url}{_PREFIXES[self.gateway]}/get_result?id={quote(job.id, safe='')}"

    def job_polling_url(self, polling_url: object) -> str | None:
        """Return ``polling_url`` if this gateway requires it and it may receive the key; otherwise None."""
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
        # Some resellers return the image's own URL here once it is ready, which cannot be polled.
        if host.startswith("delivery") or _IMAGE_PATH.search(parts.path) or parts.username or parts.password:
            return False
        if same_origin(url, self.base_url):
            return True
        return parts.scheme == "https" and port in (None, 443) and re.fullmatch(r"([\w-]+\.)*bfl\.ai", host) is not None

    def check_download_url(self, url: str, job_id: str | None) -> None:
        """Refuse a download URL that may point into a private network.

        Allowed are https to a public address or to one of ``delivery_networks``, and the API's own origin (an emulator
        on localhost). The addresses of a host name are checked when it is connected to.

        :raises FluxUnsafeUrlError: naming the host, never the (signed) URL.
        """
        if not same_origin(url, self.base_url):
            check_url(url, job_id, self.delivery_networks)

    def probe_hosts(self) -> list[str]:
        """Return the host names whose addresses show before a submit whether its image could be downloaded."""
        host = urlsplit(self.base_url).hostname or ""
        hosts = [host] if is_domain_name(host) else []
        return [*hosts, _DELIVERY_HOST] if _PUBLIC_API.fullmatch(host) else hosts


def infer_gateway(base_url: str) -> str:
    """Return the gateway at ``base_url``: ``"bfl"`` for Black Forest Labs' hosts, otherwise ``"cometapi"``."""
    try:
        host = urlsplit(base_url).hostname or ""
    except ValueError:
        host = ""
    return BFL if re.fullmatch(r"(.+\.)?bfl\.(ai|ml)", host) else COMETAPI


def make_endpoint(
    base_url: str | None,
    api_key: str | None,
    gateway: str | None = None,
    timeout: float | str | None = None,
    delivery_networks: object = None,
) -> Endpoint:
    """Return a validated :class:`Endpoint`.

    :param base_url: The API's own path at its end is removed, also with a model or another endpoint; default: the
        gateway's public API.
    :param api_key: Surrounding white space and a leading ``Bearer`` are removed.
    :param gateway: Default: inferred from the host.
    :param timeout: Seconds; default: ``DEFAULT_TIMEOUT``.
    :param delivery_networks: Networks that images may be downloaded from although they are not public: a list, or text
        separated by commas.
    :raises FluxConfigurationError: if the URL, the gateway, the timeout or the networks are invalid.
    """
    name = str(gateway or "").strip().lower() or infer_gateway(base_url or "")
    if name not in _PREFIXES:
        raise FluxConfigurationError(f"gateway is {gateway!r}; it must be {COMETAPI!r} or {BFL!r}.")
    url = _parse_base_url((base_url or BASE_URLS[name]).strip(), name)
    key = (api_key or "").strip().removeprefix("Bearer ").strip()
    return Endpoint(url, key, name, _parse_timeout(timeout), parse_networks(delivery_networks))


def _parse_base_url(given: str, gateway: str) -> str:
    # Checked first, since the other errors quote the URL.
    if "@" in given:
        raise FluxConfigurationError(
            "The base URL contains a user name or password; the key belongs in the password field."
        )
    url = _without_pasted_path(given, gateway)
    scheme, host, _ = origin(url) or ("", "", None)
    if scheme not in ("http", "https") or "?" in url or "#" in url:
        raise FluxConfigurationError(f"{given!r} is not a base URL like {BASE_URLS[gateway]}.")
    if _PUBLIC_API.fullmatch(host) and (path := urlsplit(url).path):
        raise FluxConfigurationError(
            f"{given!r} is not a base URL like {BASE_URLS[gateway]}: the path {path!r} is not part of a FLUX API."
        )
    return url


def _without_pasted_path(url: str, gateway: str) -> str:
    location, question_mark, query = url.partition("?")
    location = location.rstrip("/")
    is_public = _PUBLIC_API.fullmatch((origin(location) or ("", "", None))[1])
    # A public API has no other paths, so the other gateway's path was pasted by mistake, too.
    pasted = _PASTED_PATHS[COMETAPI if is_public else gateway].search(location)
    return location[: pasted.start()].rstrip("/") if pasted else location + question_mark + query


def _parse_timeout(timeout: float | str | None) -> float:
    try:
        seconds = float(timeout) if timeout not in (None, "") else DEFAULT_TIMEOUT
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise FluxConfigurationError(f"timeout is {timeout!r}; it must be a number of seconds above 0.")
    return seconds
