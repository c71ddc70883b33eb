"""One reading of the URI of a place in a store, for all who take it apart: letter for letter."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import urlsplit

# RFC 3986 without query and fragment: in a key, '?' and '#' are letters like others.
_URI = re.compile(r"(?:(?P<scheme>[A-Za-z][A-Za-z0-9+.-]*):)?(?://(?P<host>[^/]*))?(?P<path>.*)", re.DOTALL)

# A signature of Azure, AWS or Google among the parameters of a URL, or a password before the host.
_SECRET = re.compile(r"[?&](?:sig|(?:X-\w+-)?Signature|X-\w+-Security-Token)=|//[^/@]*:[^/]*@", re.IGNORECASE)
_AZURE_ACCOUNT = re.compile(r"[^.]+\.(?:dfs|blob)\.[a-z0-9.-]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class PlaceUri:
    """The parts of a URI such as ``s3://conn_id@bucket/folder/name.png``.

    :param scheme: In lower case; empty for a plain path.
    :param conn_id: The Airflow connection that it names; None if it names none.
    :param host: Bucket or container; may be empty.
    :param path: Path, with its slash in front.
    """

    scheme: str
    conn_id: str | None
    host: str
    path: str

    @property
    def key(self) -> str:
        """The path as object stores have it, without the slash in front."""
        return self.path[1:] if self.path.startswith("/") else self.path

    @property
    def is_azures_own(self) -> bool:
        """Whether it is of the form ``abfs://container@account.dfs.core.windows.net/x.png``, with no connection."""
        return self.scheme != "s3" and _AZURE_ACCOUNT.fullmatch(self.host) is not None


def has_secret(uri: str) -> bool:
    """Return whether a URI contains a password or a signature, so that it must not be quoted."""
    return _SECRET.search(uri) is not None


def read_uri(uri: str) -> PlaceUri:
    """Take a URI apart.

    :raises ValueError: if its host cannot be one.
    """
    found = _URI.fullmatch(uri)
    assert found is not None, "every text matches"
    authority = found["host"] or ""
    urlsplit(f"//{authority}")  # knows what a host may not be
    conn_id, _, host = authority.rpartition("@")
    return PlaceUri((found["scheme"] or "").lower(), conn_id or None, host, found["path"])
