"""PathStore: an image at any URI that ObjectStoragePath opens; a local file foremost."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from airflow_provider_flux.images.stores import FluxStoreUnusableError, Store

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath


class PathStore(Store):
    """A file at any URI that ObjectStoragePath opens.

    :param path: The path.
    """

    def __init__(self, path: ObjectStoragePath) -> None:
        self.uri = str(path)
        self._path = path

    @property
    def _is_local(self) -> bool:
        return self._path.protocol in ("", "file", "local")

    def check(self) -> None:
        if self._is_local:
            self._check_local(Path(self._path.path))
            return
        try:
            # Loads the filesystem's library and its connection.
            _ = self._path.fs
        except (ValueError, ImportError) as error:
            raise FluxStoreUnusableError(f"{self.uri} cannot be opened ({error}).") from error

    def _check_local(self, target: Path) -> None:
        if target.is_dir():
            raise FluxStoreUnusableError(f"{self.uri} is a folder.")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=target.parent):
                pass
            target.with_name(f"{target.name}.json").exists()
        except OSError as error:
            raise FluxStoreUnusableError(f"{self.uri} cannot be written ({error}).") from error

    def beside(self, name: str) -> PathStore:
        return PathStore(self._path.parent / name)

    def put(self, path: Path, content_type: str, metadata: dict[str, str]) -> None:
        if not self._is_local:
            self._path.fs.put_file(str(path), self._path.path)
            return
        _replace(Path(self._path.path), path)

    def get(self, file: BinaryIO) -> None:
        with self._path.open("rb") as stored:
            shutil.copyfileobj(stored, file)

    def holds(self, size: int, sha256: str) -> bool:
        try:
            if self._path.fs.size(self._path.path) != size:
                return False
            with self._path.open("rb") as stored:
                return hashlib.file_digest(stored, "sha256").hexdigest() == sha256
        except FileNotFoundError:
            return False

    def read_note(self, max_bytes: int) -> bytes | None:
        try:
            with self._path.fs.open(f"{self._path.path}.json", "rb") as stored:
                data: bytes = stored.read(max_bytes)
                return data
        except FileNotFoundError:
            return None

    def write_note(self, data: bytes) -> None:
        if not self._is_local:
            self._path.fs.pipe_file(f"{self._path.path}.json", data)
            return
        with tempfile.NamedTemporaryFile() as file:
            file.write(data)
            file.flush()
            _replace(Path(f"{self._path.path}.json"), Path(file.name))


def _replace(target: Path, source: Path) -> None:
    """Copy ``source`` over ``target`` so that at no moment half of it lies there."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        with source.open("rb") as data, part.open("wb") as file:
            shutil.copyfileobj(data, file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
