"""Which download URLs are requested, and which addresses may be connected to for them.

A download URL comes from outside, so it must not point into a private network. A host name is resolved once, and the
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

NETWORKS_SETTING = "allowed_delivery_networks"
"""The field of the connection's extra that allows addresses that are not public."""

# NAT64, and the deprecated "IPv4-compatible" addresses.
_IPV4_EMBEDDED = (ipaddress.IPv6Network("64:ff9b::/96"), ipaddress.IPv6Network("::/96"))
# What fake-IP DNS, split DNS and carriers use. Errors suggest no other network, least of all a metadata service's.
_SUGGESTED_NETWORKS = tuple(
    map(
        ipaddress.ip_network,
        ("198.18.0.0/15", "100.64.0.0/10", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7"),
    )
)


class ForbiddenAddressError(Exception):
    """No address of ``host`` may be connected to; ``address`` is one of them."""

    def __init__(self, host: str, address: str) -> None:
        problem = "is not a public address" if host == address else f"has the address {address}, which is not public"
        super().__init__(f"{host!r} {problem}")
        self.host = host
        self.address = address


def parse_networks(value: object) -> tuple[Network, ...]:
    """Return the networks in ``value``: a list, or text separated by commas.

    :raises FluxConfigurationError: naming the first invalid one.
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
                f"{NETWORKS_SETTING} contains {item!r}; it must be a list of networks like '198.18.0.0/15', or such "
                "networks as text separated by commas."
            ) from None
    return tuple(networks)


def check_url(url: str, job_id: str | None, networks: Iterable[Network] = ()) -> None:
    """Refuse a download URL that is not https, or that contains an address that may not be connected to.

    A host name is not resolved here, but by :func:`resolve_host` when it is connected to, or by the proxy.

    :raises FluxUnsafeUrlError: naming the host, never the (signed) URL.
    """
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        parts, host = None, ""
    if parts is None or not host or parts.scheme != "https" or parts.username or parts.password:
        scheme = parts.scheme if parts is not None else ""
        raise FluxUnsafeUrlError(
            f"The URL of {image_label(job_id)} was not requested: it must be https, with a host and no user name "
            f"(scheme {scheme!r}, host {host!r}).",
            job_id=job_id,
        )
    address = _literal_address(host)
    if address is not None and not _may_connect(address, networks):
        raise unsafe_url_error(ForbiddenAddressError(host, str(address)), job_id)


def resolve_host(host: str, port: int, networks: Iterable[Network] = ()) -> list[str]:
    """Return the addresses of ``host`` that may be connected to.

    :raises ForbiddenAddressError: if it only has other addresses.
    :raises OSError: if it has no address.
    """
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
    except UnicodeError as error:
        raise OSError(str(error)) from None
    allowed = [address for address in dict.fromkeys(found) if _may_connect(ipaddress.ip_address(address), networks)]
    if found and not allowed:
        raise ForbiddenAddressError(host, found[0])
    return allowed


def delivery_warning(hosts: Iterable[str], networks: Iterable[Network]) -> str | None:
    """Return the warning that images may not be downloadable, because ``hosts`` have private addresses; else None."""
    for host in hosts:
        try:
            resolve_host(host, 443, networks)
        except ForbiddenAddressError as error:
            return (
                f"{error}. An image whose host has such an address, too, is billed but not downloaded. If this is how "
                f"your network reaches it (fake-IP DNS, split DNS), add the network{network_hint(error.address)} to "
                f"{NETWORKS_SETTING} in the extra of the Airflow connection."
            )
        except OSError:
            continue
    return None


def unsafe_url_error(error: ForbiddenAddressError, job_id: str | None) -> FluxUnsafeUrlError:
    """Return the error for an image whose host may not be connected to, with how to allow it."""
    before = ", and run the task again before the image's URL expires, which takes about ten minutes" if job_id else ""
    return FluxUnsafeUrlError(
        f"The URL of {image_label(job_id)} was not requested: {error}. If this is how your network reaches it (fake-IP "
        f"DNS, split DNS, a private network), add the network{network_hint(error.address)} to {NETWORKS_SETTING} in "
        f"the extra of the Airflow connection{before}.",
        job_id=job_id,
    )


def network_hint(address: str) -> str:
    """Return the well-known private network of ``address`` as a phrase for a message; empty if it is in none."""
    ip = ipaddress.ip_address(address)
    return next((f", such as {network}," for network in _SUGGESTED_NETWORKS if ip in network), "")


def is_domain_name(host: str) -> bool:
    """Return whether ``host`` is a full domain name, not an address or a name without a dot."""
    return "." in host and _literal_address(host) is None


def image_label(job_id: str | None) -> str:
    """Return what is downloaded, for a message: the image of a job, or an author's own input image."""
    return f"the image of job {job_id}" if job_id else "the input image"


def same_origin(url: str, other: str) -> bool:
    """Return whether two URLs have the same scheme, host and port."""
    found = origin(url)
    return found is not None and found == origin(other)


def origin(url: str) -> tuple[str, str, int | None] | None:
    """Return scheme, host and port of ``url``; None if it has no host."""
    try:
        parts = urlsplit(url)
        port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return None
    return (parts.scheme, parts.hostname, port) if parts.hostname else None


def absolute_url(base_url: str, url: str) -> str:
    """Return ``url`` as an absolute URL; without a host or a scheme it is relative to the API's base URL."""
    try:
        return urljoin(f"{base_url}/", url)
    except ValueError:
        return url


def is_data_url(url: str) -> bool:
    """Return whether ``url`` contains the image itself."""
    return url[:5].lower() == "data:"


def decode_data_url(url: str) -> tuple[str, bytes]:
    """Return the content type and the bytes that a ``data:`` URL contains.

    :raises ValueError: if it cannot be decoded.
    """
    head, comma, text = url[5:].partition(",")
    if not comma:
        raise ValueError("it has no data")
    data = unquote_to_bytes(text)
    if head.lower().rstrip().endswith(";base64"):
        # Some servers use the URL-safe alphabet and omit the padding.
        data = b"".join(data.split()).translate(bytes.maketrans(b"-_", b"+/")).rstrip(b"=")
        data = base64.b64decode(data + b"=" * (-len(data) % 4), validate=True)
    return head.partition(";")[0], data


def _literal_address(host: str) -> Address | None:
    """Return the address that ``host`` is, in any notation that a connection would accept."""
    with contextlib.suppress(ValueError):
        return ipaddress.ip_address(host)
    if re.fullmatch(r"(.+\.)?localhost\.?", host):
        return ipaddress.IPv4Address("127.0.0.1")
    with contextlib.suppress(OSError, ValueError):
        return ipaddress.IPv4Address(socket.inet_aton(host))  # "127.1", "2130706433"
    return None


def _may_connect(ip: Address, networks: Iterable[Network]) -> bool:
    translated = _translated(ip)
    return any(ip in network or translated in network for network in networks) or _is_public(ip)


def _translated(ip: Address) -> Address:
    """Return the IPv4 address that a translator in the network would forward to, or the address itself."""
    if isinstance(ip, ipaddress.IPv4Address):
        return ip
    is_embedded = any(ip in network for network in _IPV4_EMBEDDED)
    embedded = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF) if is_embedded else None
    return embedded or ip.ipv4_mapped or ip.sixtofour or ip


def _is_public(ip: Address) -> bool:
    if isinstance(ip, ipaddress.IPv6Address) and (ip.scope_id or ip.is_site_local):
        return False
    ip = _translated(ip)
    return ip.is_global and not (ip.is_multicast or ip.is_reserved)
