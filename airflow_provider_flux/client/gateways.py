"""The two dialects of the FLUX API: paths, auth header, which URL to poll, which URL to fetch from."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from urllib.parse import quote, urlsplit

from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.url_safety import Network, check_url, is_name, origin, read_networks, same_origin
from airflow_provider_flux.exceptions import FluxConfigurationError

COMETAPI = "cometapi"
BFL = "bfl"
BASE_URLS = {COMETAPI: "https://api.cometapi.com", BFL: "https://api.bfl.ai"}

_IMAGE_PATH = re.compile(r"\.(jpe?g|png|webp)$", re.IGNORECASE)
_PREFIX = {COMETAPI: "/flux/v1", BFL: "/v1"}
_PUBLIC_API = re.compile(r"(.+\.)?(bfl\.(ai|ml)|cometapi\.com)", re.IGNORECASE)
# Both gateways name hosts like it; which one an image will come from is not known before.
_DELIVERY_HOST = "delivery.eu2.bfl.ai"
# What users paste behind the base URL: the API's own path, or part of it, or a whole endpoint. A host may be named so.
_ENDPOINT = r"(/(get_result|credits|flux[\w.-]*))?"
_PASTED = {
    COMETAPI: re.compile(rf"(?<!/)(/flux|(/flux)?/v1{_ENDPOINT})$", re.IGNORECASE),
    BFL: re.compile(rf"(?<!/)/v1{_ENDPOINT}$", re.IGNORECASE),
}


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the FLUX API is, and how to speak to it.

    :param base_url: Scheme and host, perhaps a path, without the API's own path.
    :param api_key: The key; never part of the repr.
    :param gateway: ``"cometapi"`` or ``"bfl"``.
    :param timeout: Seconds that connecting, or a pause within an answer, may take.
    :param delivery_networks: Networks that images may be fetched from though they are not public.
    """

    base_url: str
    api_key: str = field(repr=False)
    gateway: str = COMETAPI
    timeout: float = 30.0
    delivery_networks: tuple[Network, ...] = ()

    @property
    def auth_headers(self) -> dict[str, str]:
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

    def check_download_url(self, url: str, job_id: str | None) -> None:
        """Refuse a delivery URL that could lead into somebody's own network.

        Allowed is https to a public address or to one of ``delivery_networks``, and the API's own origin (an emulator
        on localhost). What a name leads to is checked when it is connected to.

        :raises FluxUnsafeUrlError: naming the host, never the (signed) URL.
        """
        if not same_origin(url, self.base_url):
            check_url(url, job_id, self.delivery_networks)

    def names_to_look_up(self) -> list[str]:
        """Return the names whose addresses show before a submit whether its image could be fetched."""
        host = urlsplit(self.base_url).hostname or ""
        names = [host] if is_name(host) else []
        return [*names, _DELIVERY_HOST] if _PUBLIC_API.fullmatch(host) else names


def infer_gateway(base_url: str) -> str:
    """Return the dialect spoken at ``base_url``: ``"bfl"`` for Black Forest Labs' hosts, else ``"cometapi"``."""
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
    """Return a checked :class:`Endpoint`.

    The API's own path at the end of ``base_url`` is left out, also with a model or another endpoint behind it.

    :param delivery_networks: Networks that images may be fetched from though they are not public: a list, or text
        with commas between.
    :raises FluxConfigurationError: if the URL, the gateway, the timeout or the networks cannot be used.
    """
    dialect = str(gateway or "").strip().lower() or infer_gateway(base_url or "")
    if dialect not in _PREFIX:
        raise FluxConfigurationError(f"gateway is {gateway!r}; it must be {COMETAPI!r} or {BFL!r}.")
    given = (base_url or BASE_URLS[dialect]).strip()
    # Before anything that names the URL in an error.
    if "@" in given:
        raise FluxConfigurationError(
            "The base URL holds a user name or password; the key belongs in the password field."
        )
    url = _without_endpoint(given, dialect)
    scheme, host, _ = origin(url) or ("", "", None)
    if scheme not in ("http", "https") or "?" in url or "#" in url:
        raise FluxConfigurationError(f"{given!r} is not a base URL like {BASE_URLS[dialect]}.")
    if _PUBLIC_API.fullmatch(host) and (path := urlsplit(url).path):
        raise FluxConfigurationError(
            f"{given!r} is not a base URL like {BASE_URLS[dialect]}: no FLUX API lies at the path {path!r}."
        )
    try:
        seconds = float(timeout) if timeout not in (None, "") else 30.0
    except (TypeError, ValueError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise FluxConfigurationError(f"timeout is {timeout!r}; it must be a number of seconds above 0.")
    # A key that was pasted with its line end, or whole with "Bearer ", is still the key.
    key = (api_key or "").strip().removeprefix("Bearer ").strip()
    return Endpoint(url, key, dialect, seconds, read_networks(delivery_networks))


def _without_endpoint(url: str, dialect: str) -> str:
    place, mark, query = url.partition("?")
    place = place.rstrip("/")
    is_public = _PUBLIC_API.fullmatch((origin(place) or ("", "", None))[1])
    # Nothing else lies at a public API, so that there the other dialect's path is pasted by mistake, too.
    found = _PASTED[COMETAPI if is_public else dialect].search(place)
    return place[: found.start()].rstrip("/") if found else place + mark + query
