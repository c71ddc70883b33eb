"""What the filesystem of a protocol can do beyond fsspec's common methods, and which packages it comes from."""

from __future__ import annotations

import logging
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


class AzureFilesystem(Filesystem):
    """adlfs, which hands further arguments of a write to Azure's client: ETags and content types among them."""

    has_conditional_writes = True

    def put_file(self, fs: Any, source: str, target: str, content_type: str, metadata: dict[str, str]) -> None:
        fs.put_file(source, target, content_settings={"content_type": content_type})
        # adlfs writes metadata of its own with the file; Azure's names are identifiers, without a hyphen.
        named = {name.replace("-", "_"): metadata_text(value) for name, value in metadata.items()}
        fs.setxattrs(target, is_directory="false", **named)

    def read_note(self, fs: Any, path: str, max_bytes: int) -> Sidecar:
        # The version first: content that is newer than its version is only a conflict at the next write.
        version = fs.info(path, refresh=True)["etag"]
        return Sidecar(fs.cat_file(path, end=max_bytes), _quoted(version))

    def write_note(self, fs: Any, path: str, data: bytes, replaces: Sidecar | None) -> Sidecar:
        from azure.core import MatchConditions
        from azure.core.exceptions import ResourceModifiedError, ResourceNotFoundError

        condition: dict[str, Any] = {"overwrite": False}
        if replaces is not None:
            condition = {"etag": replaces.version, "match_condition": MatchConditions.IfNotModified}
        try:
            written = fs.pipe_file(path, data, content_settings={"content_type": "application/json"}, **condition)
        except (FileExistsError, ResourceModifiedError, ResourceNotFoundError) as error:
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
        return Sidecar(data, _quoted(written["etag"]))


def _quoted(etag: str) -> str:
    """Return an ETag as HTTP has it; adlfs removes the quotation marks in some places."""
    return f'"{etag.strip(chr(34))}"'


def filesystem_of(protocol: str) -> Filesystem:
    """Return what is known about the filesystem of a protocol."""
    if protocol in ("abfs", "abfss", "az"):
        _quieten_azure()
        return AzureFilesystem()
    return Filesystem()


def _quieten_azure() -> None:
    """Azure's client logs each request and response at INFO; whoever has set a level keeps it."""
    azure = logging.getLogger("azure")
    if azure.level == logging.NOTSET:
        azure.setLevel(logging.WARNING)
