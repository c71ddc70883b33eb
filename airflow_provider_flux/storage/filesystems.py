"""What the filesystem of a protocol can do beyond fsspec's common methods, and which packages it comes from."""

from __future__ import annotations

import json
import logging
import uuid
from typing import Any

from airflow_provider_flux.storage.base import Sidecar, SidecarConflictError
from airflow_provider_flux.storage.s3 import metadata_text

_MICROSOFT = "apache-airflow-providers-microsoft-azure adlfs"
_GOOGLE = "apache-airflow-providers-google gcsfs"
_PACKAGES = {
    **dict.fromkeys(("abfs", "abfss", "adl"), _MICROSOFT),
    **dict.fromkeys(("gs", "gcs"), _GOOGLE),
    "sftp": "apache-airflow-providers-sftp sshfs",
    "hdfs": "apache-airflow-providers-apache-hdfs pyarrow",
}


def packages_of(protocol: str) -> str | None:
    """Return the packages to install for a protocol, separated by blanks; None if they are not known here."""
    return _PACKAGES.get(protocol)


class Filesystem:
    """The methods that all filesystems share: no content type, no metadata, no conditional writes."""

    has_conditional_writes = False

    def put_file(self, fs: Any, source: str, target: str, content_type: str, metadata: dict[str, str]) -> None:
        """Copy a local file to ``target``, with as much of its description as the filesystem stores."""
        fs.put_file(source, target)

    def read_note(self, fs: Any, path: str, max_bytes: int) -> Sidecar:
        """Read a sidecar.

        :raises FileNotFoundError: if it does not exist.
        """
        with fs.open(path, "rb") as stored:
            return Sidecar.of(stored.read(max_bytes))

    def write_note(self, fs: Any, path: str, data: bytes, replaces: Sidecar | None) -> Sidecar:
        """Write a sidecar, conditionally if the filesystem can.

        :raises SidecarConflictError: if another one exists now.
        """
        fs.pipe_file(path, data)
        return Sidecar.of(data)


class ConditionalFilesystem(Filesystem):
    """A filesystem whose library lets a write depend on the version that it replaces."""

    has_conditional_writes = True

    def write_note(self, fs: Any, path: str, data: bytes, replaces: Sidecar | None) -> Sidecar:
        try:
            return self._put_note(fs, path, data, replaces)
        except self._conflicts() as error:
            # The client sends a request again whose response was lost: what is in the way may be this very note.
            try:
                there = self.read_note(fs, path, len(data) + 1)
            except FileNotFoundError:
                if replaces is None:
                    raise error from None  # no sidecar is in the way: the container is missing
                there = None
            if there is not None and there.data == data:
                return there
            raise SidecarConflictError(f"{path} was written by another process.") from error

    def _put_note(self, fs: Any, path: str, data: bytes, replaces: Sidecar | None) -> Sidecar:
        raise NotImplementedError

    def _conflicts(self) -> tuple[type[Exception], ...]:
        """Return the errors that say that the condition of a write does not hold."""
        return (FileExistsError, FileNotFoundError)


class AzureFilesystem(ConditionalFilesystem):
    """adlfs, which hands further arguments of a write to Azure's client: ETags and content types among them."""

    def put_file(self, fs: Any, source: str, target: str, content_type: str, metadata: dict[str, str]) -> None:
        fs.put_file(source, target, content_settings={"content_type": content_type})
        # adlfs writes metadata of its own with the file; Azure's names are identifiers, without a hyphen.
        named = {name.replace("-", "_"): metadata_text(value) for name, value in metadata.items()}
        fs.setxattrs(target, is_directory="false", **named)

    def read_note(self, fs: Any, path: str, max_bytes: int) -> Sidecar:
        # The version first: content that is newer than its version is only a conflict at the next write.
        version = fs.info(path, refresh=True)["etag"]
        return Sidecar(fs.cat_file(path, end=max_bytes), _quoted(version))

    def _put_note(self, fs: Any, path: str, data: bytes, replaces: Sidecar | None) -> Sidecar:
        from azure.core import MatchConditions

        condition: dict[str, Any] = {"overwrite": False}
        if replaces is not None:
            condition = {"etag": replaces.version, "match_condition": MatchConditions.IfNotModified}
        written = fs.pipe_file(path, data, content_settings={"content_type": "application/json"}, **condition)
        return Sidecar(data, _quoted(written["etag"]))

    def _conflicts(self) -> tuple[type[Exception], ...]:
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError

        return (*super()._conflicts(), ResourceModifiedError, ResourceNotFoundError)


class GoogleFilesystem(ConditionalFilesystem):
    """gcsfs, which writes content types and metadata; for the generation of an object, its JSON API is called."""

    def put_file(self, fs: Any, source: str, target: str, content_type: str, metadata: dict[str, str]) -> None:
        texts = {name: metadata_text(value) for name, value in metadata.items()}
        fs.put_file(source, target, content_type=content_type, metadata=texts)

    def read_note(self, fs: Any, path: str, max_bytes: int) -> Sidecar:
        bucket, key, _ = fs.split_path(path)
        # Not info(), which may answer from a cache. The version first, as for Azure.
        found = fs.call("GET", "b/{}/o/{}", bucket, key, json_out=True)
        data = fs.cat_file(path, end=max_bytes) if int(found["size"]) else b""
        return Sidecar(data, found["generation"])

    def _put_note(self, fs: Any, path: str, data: bytes, replaces: Sidecar | None) -> Sidecar:
        bucket, key, _ = fs.split_path(path)
        content_type, body = _multipart({"name": key}, data)
        written = fs.call(
            "POST",
            f"{fs.base.removesuffix('storage/v1/')}upload/storage/v1/b/{{}}/o",
            bucket,
            uploadType="multipart",
            ifGenerationMatch="0" if replaces is None else replaces.version,
            headers={"Content-Type": content_type},
            data=body,
            json_out=True,
        )
        fs.invalidate_cache(path.rpartition("/")[0])
        return Sidecar(data, written["generation"])


def _multipart(about: dict[str, str], note: bytes) -> tuple[str, bytes]:
    """Return the content type and the body of an upload to Google: what the object is, and its JSON."""
    boundary = uuid.uuid4().hex
    head = f"\r\n--{boundary}\r\nContent-Type: application/json\r\n\r\n".encode()
    body = b"".join((head, json.dumps(about).encode(), head, note, f"\r\n--{boundary}--\r\n".encode()))
    return f"multipart/related; boundary={boundary}", body


def _quoted(etag: str) -> str:
    """Return an ETag as HTTP has it; adlfs removes the quotation marks in some places."""
    return f'"{etag.strip(chr(34))}"'


def filesystem_of(protocol: str) -> Filesystem:
    """Return what is known about the filesystem of a protocol."""
    if protocol in ("abfs", "abfss", "az"):
        _quieten_azure()
        return AzureFilesystem()
    if protocol in ("gs", "gcs"):
        return GoogleFilesystem()
    return Filesystem()


def _quieten_azure() -> None:
    """Azure's client logs each request and response at INFO; whoever has set a level keeps it."""
    azure = logging.getLogger("azure")
    if azure.level == logging.NOTSET:
        azure.setLevel(logging.WARNING)
