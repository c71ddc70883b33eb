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
from urllib.parse import urlsplit

from airflow_provider_flux.client.errors import FluxError


class FluxStoreUnusableError(FluxError):
    """The place an image should go to cannot be used; found before money is spent."""

    mend = "Correct where the image should go."


class FluxImageExistsError(FluxError):
    """Another object lies where the image should go, and may not be replaced."""

    mend = "Choose another key, or allow to replace it."


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


class Store(abc.ABC):
    """One place for one image."""

    uri: str

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

    :param uri: ``s3://bucket/key`` (or ``s3://conn_id@bucket/key``), ``file:///path``, or any other URI that
        ObjectStoragePath opens.
    :param aws_conn_id: Airflow connection for S3, unless the URI names one.
    :param s3_arguments: Further arguments of :class:`S3Store`.
    :raises FluxStoreUnusableError: if the URI cannot name an image.
    """
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise FluxStoreUnusableError(f"{uri!r} is no URI ({error}).") from None
    if parts.scheme in ("file", "local") and parts.netloc not in ("", "localhost"):
        raise FluxStoreUnusableError(f"{uri!r} must have three slashes: {parts.scheme}:///folder/name.png.")
    if uri.endswith("/") or not parts.path.strip("/"):
        raise FluxStoreUnusableError(f"{uri!r} names no file.")
    if parts.scheme == "s3":
        conn_id, _, bucket = parts.netloc.rpartition("@")
        if not bucket:
            raise FluxStoreUnusableError(f"{uri!r} names no bucket.")
        # Not parts.path: '?' and '#' are letters like others in a key.
        key = uri.split("://", 1)[1].partition("/")[2]
        from airflow_provider_flux.images.s3_store import S3Store

        return S3Store(bucket, key, conn_id or aws_conn_id, **s3_arguments)
    if not parts.scheme and not parts.path.startswith("/"):
        raise FluxStoreUnusableError(f"{uri!r} is not a URI like s3://bucket/key.png or file:///folder/x.png.")

    from airflow.sdk import ObjectStoragePath

    from airflow_provider_flux.images.path_store import PathStore

    try:
        return PathStore(ObjectStoragePath(uri))
    except (ValueError, ImportError) as error:
        raise FluxStoreUnusableError(f"{uri!r} cannot be opened ({error}).") from error
