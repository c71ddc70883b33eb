"""Where images lie: S3 through the amazon provider's S3Hook, any other URI through ObjectStoragePath.

A store holds one image at one URI. It is written whole or not at all.
"""

from __future__ import annotations

import abc
import hashlib
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from airflow_provider_flux.client.errors import FluxError
from airflow_provider_flux.images.uris import read_uri


class FluxStoreUnusableError(FluxError):
    """The place an image should go to cannot be used; found before money is spent."""

    mend = "Correct where the image should go."


class FluxImageExistsError(FluxError):
    """Another image or object is where the image should go, and may not be replaced."""

    mend = "Choose another place, or set replace=True."


class FluxStoreError(FluxError):
    """The image could not be stored, or the store not be reached."""

    retryable = True

    @classmethod
    def _money(cls, job_id: str | None) -> str:
        told = "Nothing was paid by this try; perhaps by an earlier one."
        return f"Job {job_id} is finished and paid for." if job_id else told


@dataclass(frozen=True, slots=True)
class Note:
    """The JSON note beside an image, as it was read or written.

    :param data: The note.
    :param version: Differs from that of every other note that was there before or comes after.
    """

    data: bytes
    version: str

    @classmethod
    def of(cls, data: bytes) -> Note:
        """Return a note whose version is its content, for stores that have no versions of their own."""
        return cls(data, hashlib.sha256(data).hexdigest())


class NoteConflictError(Exception):
    """The note is not the one that was to be replaced: another process has written it in between."""


_MISSING = {"AirflowException", "DefaultCredentialsError", "ClientAuthenticationError", "AuthenticationException"}
"""What Airflow (of a connection) and Google's, Azure's and SSH's libraries raise, by name: where they lie differs."""


class Store(abc.ABC):
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

        :raises FluxStoreUnusableError: if certainly not.
        :raises FluxStoreError: if the store cannot be reached at the moment.
        """

    @abc.abstractmethod
    def beside(self, name: str) -> Store:
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
    def holds(self, size: int, sha256: str) -> bool:
        """Tell whether the image of this size (bytes) and hash lies here."""

    @abc.abstractmethod
    def read_note(self, max_bytes: int) -> Note | None:
        """Return the JSON note beside the image, ``max_bytes`` of it at most; None if there is none."""

    @abc.abstractmethod
    def write_note(self, data: bytes, replaces: Note | None) -> Note:
        """Write the JSON note beside the image, whole or not at all, and return it.

        :param replaces: The note that it replaces; None: there is none yet.
        :raises NoteConflictError: if another note is there by now; nothing was written. S3 and local files decide
            that with the write itself, other stores by a look just before it.
        """


def open_store(uri: str, aws_conn_id: str | None, **s3_arguments: Any) -> Store:
    """Return the store at ``uri``. Touches nothing yet.

    :param uri: ``s3://bucket/key``, ``file:///path``, or any other URI that ObjectStoragePath opens. It may name its
        connection: ``s3://conn_id@bucket/key``.
    :param aws_conn_id: Airflow connection for S3, unless the URI names one.
    :param s3_arguments: Further arguments of :class:`S3Store`.
    :raises FluxStoreUnusableError: if the URI cannot name an image.
    """
    try:
        place = read_uri(uri)
    except ValueError as error:
        raise FluxStoreUnusableError(f"{uri!r} is no URI ({error}).") from None
    if ":" in (place.conn_id or ""):
        # Results and logs show where an image lies, so the URI is not quoted here.
        raise FluxStoreUnusableError(
            f"A {place.scheme}:// URI holds credentials before its '@'; name an Airflow connection there instead."
        )
    is_local = place.scheme in ("file", "local")
    if is_local and place.host not in ("", "localhost"):
        raise FluxStoreUnusableError(f"{uri!r} must have three slashes: {place.scheme}:///folder/name.png.")
    if uri.endswith("/") or not place.path.strip("/"):
        raise FluxStoreUnusableError(f"{uri!r} names no file.")
    if place.scheme == "s3":
        if not place.host:
            raise FluxStoreUnusableError(f"{uri!r} names no bucket.")
        from airflow_provider_flux.images.s3_store import S3Store

        conn_id = place.conn_id or aws_conn_id
        return S3Store(place.host, place.key, conn_id, is_conn_in_uri=place.conn_id is not None, **s3_arguments)
    if not place.scheme and (place.host or not place.path.startswith("/")):
        raise FluxStoreUnusableError(f"{uri!r} is not a URI like s3://bucket/key.png or file:///folder/x.png.")
    if uri.endswith(("?", "#")) or set(uri) & set("\t\r\n"):
        raise FluxStoreUnusableError(f"{uri!r} has letters that ObjectStoragePath drops, such as '?' at its end.")

    from airflow.sdk import ObjectStoragePath

    from airflow_provider_flux.images.path_store import PathStore

    try:
        if is_local:
            # ObjectStoragePath takes 'localhost', and a second slash, for a folder of the working directory.
            conn = f"{place.conn_id}@" if place.conn_id else ""
            uri = f"{place.scheme}://{conn}/{place.path.lstrip('/')}"
        return PathStore(ObjectStoragePath(uri))
    except (ValueError, ImportError) as error:
        raise FluxStoreUnusableError(f"{uri!r} cannot be opened ({error}).") from error
