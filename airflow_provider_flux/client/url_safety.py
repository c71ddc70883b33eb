"""Which delivery URLs are fetched, and which addresses may be connected to for them.

A delivery URL comes from outside, so it must not lead into somebody's own network. A name is looked up once, and the
address that was checked is the one that is connected to.
"""

from __future__ import annotations

import base64
import contextlib
import ipaddress
import re
import socket
from collections.abc import Iterable
from urllib.parse import unquote_to_bytes, urljoin, urlsplit

from airflow_provider_flux.exceptions import FluxConfigurationError, FluxUnsafeUrlError

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

SETTING = "allowed_delivery_networks"
"""The connection's extra that allows addresses that are not public."""

# NAT64, and "IPv4-compatible".
_IPV4_INSIDE = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
# What fake-IP DNS, split DNS and carriers use. An error suggests no other, least of all that of a metadata service.
_SUGGESTED = tuple(
    map(
        ipaddress.ip_network,
        ("198.18.0.0/15", "100.64.0.0/10", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    )
)


class RefusedAddressError(Exception):
    """No address of ``host`` may be connected to; ``address`` is one of them."""

    def __init__(self, host: str, address: str) -> None:
        has = "is not a public address" if host == address else f"has the address {address}, which is not public"
        super().__init__(f"{host!r} {has}")
        self.host = host
        self.address = address


def read_networks(value: object) -> tuple[Network, ...]:
    """Return the networks that ``value`` lists: a list, or text with commas between.

    :raises FluxConfigurationError: naming what is no network.
    """
    if value is None or isinstance(value, str):
        value = [part for part in re.split(r"[\s,]+", value or "") if part]
    networks = []
    for item in value if isinstance(value, (list, tuple)) else [value]:
        try:
            if not isinstance(item, str):
                raise ValueError
            networks.append(ipaddress.ip_network(item.strip(), strict=False))
        except ValueError:
            raise FluxConfigurationError(
                f"{SETTING} holds {item!r}; it must be a list of networks like '198.18.0.0/15', or such networks as "
                "text with commas between."
            ) from None
    return tuple(networks)


def check_url(url: str, job_id: str | None, networks: Iterable[Network] = ()) -> None:
    """Refuse a delivery URL that is not https, or that names an address that may not be connected to.

    A name is not looked up here: whoever connects does that, with :func:`look_up`, or the proxy.

    :raises FluxUnsafeUrlError: naming the host, never the (signed) URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = None, ""
    if parts is None or not host or parts.scheme != "https" or parts.username or parts.password:
        scheme = parts.scheme if parts is not None else "no"
        raise FluxUnsafeUrlError(
            f"The URL of {image_label(job_id)} was not fetched: it must be https, not {scheme} to {host!r}.",
            job_id=job_id,
        )
    address = _literal(host)
    if address is not None and not _may_connect(address, networks):
        raise refusal(RefusedAddressError(host, str(address)), job_id)


def look_up(host: str, port: int, networks: Iterable[Network] = ()) -> list[str]:
    """Return the addresses of ``host`` that may be connected to.

    :raises RefusedAddressError: if it has others only.
    :raises OSError: if it has none.
    """
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except UnicodeError as error:
        raise OSError(str(error)) from None
    allowed = [address for address in dict.fromkeys(found) if _may_connect(ipaddress.ip_address(address), networks)]
    if found and not allowed:
        raise RefusedAddressError(host, found[0])
    return allowed


def refusal(error: RefusedAddressError, job_id: str | None) -> FluxUnsafeUrlError:
    """Return the error for an image whose host may not be connected to; it says how to allow that."""
    again = ", and run the task again while the image's link lives, which is about ten minutes" if job_id else ""
    return FluxUnsafeUrlError(
        f"The URL of {image_label(job_id)} was not fetched: {error}. If this is how your network reaches it (fake-IP "
        f"DNS, split DNS, a private network), add the network{example(error.address)} to {SETTING} in the extra of the "
        f"Airflow connection{again}.",
        job_id=job_id,
    )


def example(address: str) -> str:
    """Return the well-known private network of ``address`` as words for a message; empty if it is in none."""
    ip = ipaddress.ip_address(address)
    return next((f", such as {network}," for network in _SUGGESTED if ip in network), "")


def is_name(host: str) -> bool:
    """Tell whether ``host`` is a full name that only DNS can know, rather than an address or a neighbour."""
    return "." in host and _literal(host) is None


def image_label(job_id: str | None) -> str:
    """Return what is fetched, in words: the image of a job, or an author's own that no job has made."""
    return f"the image of job {job_id}" if job_id else "the input image"


def same_origin(one: str, other: str) -> bool:
    """Tell whether two URLs have the same scheme, host and port."""
    found = origin(one)
    return found is not None and found == origin(other)


def origin(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of ``url``; None if it has none."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None


def resolved(base_url: str, url: str) -> str:
    """Return ``url`` as a whole URL: one without a host, or without a scheme, is one of the API's own place."""
    try:
        return urljoin(f"{base_url}/", url)
    except ValueError:
        return url


def is_data(url: str) -> bool:
    """Tell whether ``url`` holds the image itself."""
    return url[:5].lower() == "data:"


def read_data(url: str) -> tuple[str, bytes]:
    """Return the content type and the bytes that a ``data:`` URL holds.

    :raises ValueError: if it cannot be decoded.
    """
    head, comma, text = url[5:].partition(",")
    if not comma:
        raise ValueError("it has no data")
    data = unquote_to_bytes(text)
    if head.lower().rstrip().endswith(";base64"):
        # Some servers write the alphabet for URLs, and leave the padding out.
        data = b"".join(data.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        data = base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    return head.partition(";")[0], data


def _literal(host: str) -> Address | None:
    """Return the address that ``host`` is, in any way that connecting to it would take."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    if re.fullmatch(r"(.+\.)?localhost\.?", host):
        return ipaddress.IPv4Address("127.0.0.1")
    with contextlib.suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(host))  # "127.1", "2130706433"
    return None


def _may_connect(ip: Address, networks: Iterable[Network]) -> bool:
    means = _means(ip)
    return any(ip in network or means in network for network in networks) or _is_public(ip)


def _means(ip: Address) -> Address:
    """Return the IPv4 address that a translator on the way would send this on to, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    embeds = any(ip in network for network in _IPV4_INSIDE)
    last = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if embeds else None
    return last or ip.ipv4_mapped or ip.sixtofour or ip


def _is_public(ip: Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address) and (ip.scope_id or ip.is_site_local):
        return False
    ip = _means(ip)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)
