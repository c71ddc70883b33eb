"""ImageStore: one image at one URI, and the JSON note (its receipt) beside it. Both are written whole or not at all."""

from __future__ import annotations

import abc
import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO


@dataclass(frozen=True, slots=True)
class Sidecar:
    """The JSON note beside an image, as it was read or written.

    :param data: The note.
    :param version: Differs from that of every other note that was there before or comes after.
    """

    data: bytes
    version: str

    @classmethod
    def of(cls, data: bytes) -> Sidecar:
        """Return a note whose version is its content, for stores that have no versions of their own."""
        return cls(data, hashlib.sha256(data).hexdigest())


class SidecarConflictError(Exception):
    """The note is not the one that was to be replaced: another process has written it in between."""


_MISSING = {"AirflowException", "DefaultCredentialsError", "ClientAuthenticationError", "AuthenticationException"}
"""What Airflow (of a connection) and Google's, Azure's and SSH's libraries raise, by name: where they lie differs."""


class ImageStore(abc.ABC):
    """One place for one image.

    :param uri: Where it is, with the connection if the author's URI names one: who reads it needs the same.
    """

    uri: str

    def misconfiguration(self, error: Exception) -> str | None:
        """Return what is wrong with the configuration, if that is what ``error`` says; None if it may be an outage.

        What is missing (a connection, credentials, a library) is no outage: a retry does not bring it.
        """
        names = {cls.__name__ for cls in type(error).__mro__}
        if isinstance(error, (ImportError, ValueError, TypeError, NotImplementedError)) or names & _MISSING:
            return f"{type(error).__name__}: {error}".rstrip(".")
        return None

    @abc.abstractmethod
    def check(self) -> None:
        """Find out whether an image could be put here.

        :raises FluxStoreConfigurationError: if certainly not.
        :raises FluxStoreError: if the store cannot be reached at the moment.
        """

    @abc.abstractmethod
    def sibling(self, name: str) -> ImageStore:
        """Return the place of another name in the same folder, on the same connection."""

    def name_problem(self) -> str | None:
        """Say why no image and no note beside it can have this name here; None: nothing is known against it."""
        return None

    def file_of(self, name: str) -> str:
        """Return what another name in the same folder has in common with all that would be the same file."""
        return unicodedata.normalize("NFC", name)

    @abc.abstractmethod
    def put(self, path: Path, content_type: str, metadata: dict[str, str]) -> None:
        """Store the file, whole or not at all, over whatever was there."""

    @abc.abstractmethod
    def get(self, file: BinaryIO) -> None:
        """Write the stored image into ``file``."""

    @abc.abstractmethod
    def exists(self) -> bool:
        """Return whether anything is here."""

    @abc.abstractmethod
    def matches(self, size: int, sha256: str) -> bool:
        """Return whether the image of this size (bytes) and hash is stored here."""

    @abc.abstractmethod
    def read_sidecar(self, max_bytes: int) -> Sidecar | None:
        """Return the JSON note beside the image, ``max_bytes`` of it at most; None if there is none."""

    @abc.abstractmethod
    def write_sidecar(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        """Write the JSON note beside the image, whole or not at all, and return it.

        :param replaces: The note that it replaces; None: there is none yet.
        :raises SidecarConflictError: if another note is there by now; nothing was written. S3 and local files decide
            that with the write itself, other stores by a look just before it.
        """
