"""ImageStore: one image at one URI, and its sidecar, a JSON file beside it. Both are written atomically."""

from __future__ import annotations

import abc
import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, ClassVar

from airflow_provider_flux.exceptions import FluxStoreConfigurationError


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The JSON file beside an image, as it was read or written.

    :param data: Its content.
    :param version: Differs from the version of every earlier and later content.
    """

    data: bytes
    version: str

    @classmethod
    def of(cls, data: bytes) -> Sidecar:
        """Return a sidecar whose version is the hash of its content, for stores without versions."""
        return cls(data, hashlib.sha256(data).hexdigest())


class SidecarConflictError(Exception):
    """The sidecar is not the one to be replaced: another process wrote it in between."""


_MISSING = {
    "AirflowException",
    "AirflowNotFoundException",
    "DefaultCredentialsError",
    "RefreshError",
    "ClientAuthenticationError",
    "AuthenticationException",
}
"""Errors of Airflow (about a connection) and of Google's, Azure's and SSH's libraries, by name: their modules vary."""


def is_refusal(error: Exception) -> bool:
    """Return whether a store refuses the credentials or the permissions, in the words of any filesystem."""
    status = next((getattr(error, name) for name in ("status_code", "code", "status") if hasattr(error, name)), None)
    # gcsfs has no class of its own for it.
    is_forbidden = isinstance(error, PermissionError) or (type(error) is OSError and str(error).startswith("Forbidden"))
    return is_forbidden or status in (401, 403)


class ImageStore(abc.ABC):
    """The destination of one image.

    :param uri: Where it is, with the connection if the author's URI names one: who reads it needs the same.
    """

    uri: str
    max_presigned_seconds: ClassVar[int | None] = None
    """The longest life of a presigned URL; None: the store itself refuses what is too long."""

    def misconfiguration(self, error: Exception) -> str | None:
        """Return what is wrong with the configuration, if that caused ``error``; None if it may be an outage.

        What is missing (a connection, credentials, a library) is no outage: a retry does not bring it.
        """
        if getattr(error, "retryable", False):  # Google's RefreshError says so if its server is down
            return None
        names = {cls.__name__ for cls in type(error).__mro__}
        if isinstance(error, (ImportError, ValueError, TypeError, NotImplementedError)) or names & _MISSING:
            return f"{type(error).__name__}: {error}".rstrip(".")
        return None

    @abc.abstractmethod
    def check(self) -> None:
        """Check whether an image can be stored here.

        :raises FluxStoreConfigurationError: if certainly not.
        :raises FluxStoreError: if the store cannot be reached at the moment.
        """

    @abc.abstractmethod
    def sibling(self, name: str) -> ImageStore:
        """Return the store of another name in the same folder, with the same connection."""

    def names(self, limit: int) -> frozenset[str] | None:
        """Return the names of all files in this folder, sidecars among them; None if asking for each is cheaper.

        :param limit: About how many names are worth listing.
        """
        return None

    def name_problem(self) -> str | None:
        """Return why an image and its sidecar cannot have this name here; None if they can, as far as is known."""
        return None

    def file_of(self, name: str) -> str:
        """Return a key that is equal for all names in the same folder that denote the same file."""
        return unicodedata.normalize("NFC", name)

    @abc.abstractmethod
    def put(self, path: Path, content_type: str, metadata: dict[str, str]) -> None:
        """Store the file atomically, in place of what is stored here."""

    @abc.abstractmethod
    def get(self, file: BinaryIO) -> None:
        """Write the stored image into ``file``."""

    @abc.abstractmethod
    def exists(self) -> bool:
        """Return whether anything is stored here."""

    @abc.abstractmethod
    def matches(self, size: int, sha256: str) -> bool:
        """Return whether the image of this size (bytes) and hash is stored here."""

    def presigned_url(self, expires: int) -> str:
        """Return an address that shows the stored image to everybody who has it.

        :param expires: Seconds after which it ends, at most ``max_presigned_seconds``.
        :raises FluxStoreConfigurationError: if the store has no such addresses.
        """
        raise FluxStoreConfigurationError(f"{self.uri} cannot have a presigned URL: its store does not sign URLs.")

    @abc.abstractmethod
    def read_sidecar(self, max_bytes: int) -> Sidecar | None:
        """Return the sidecar, up to ``max_bytes`` of it; None if it does not exist."""

    def replace_sidecar(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        """As :meth:`write_sidecar`, but only if the write itself is conditional.

        :raises SidecarConflictError: if another sidecar exists now; nothing was written.
        :raises FluxStoreConfigurationError: if the store has no conditional writes; nothing was written.
        """
        raise FluxStoreConfigurationError(
            f"{self.uri}.json cannot be written safely by several processes: this store has no conditional writes. Use "
            f"S3, Azure Blob Storage, Google Cloud Storage, or a local file."
        )

    @abc.abstractmethod
    def write_sidecar(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        """Write the sidecar atomically, and return it.

        :param replaces: The sidecar that it replaces; None: none exists yet.
        :raises SidecarConflictError: if another sidecar exists now; nothing was written. For S3, Azure,
            Google and local files, the write itself is conditional; other stores are read right before it.
        """
