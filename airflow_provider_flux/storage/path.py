"""PathStore: an image at any URI that ObjectStoragePath opens, local files included."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import io
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from airflow_provider_flux.exceptions import FluxStoreConfigurationError, FluxStoreError
from airflow_provider_flux.storage.base import ImageStore, Sidecar, SidecarConflictError, is_refusal
from airflow_provider_flux.storage.filesystems import filesystem_of, packages_of

if TYPE_CHECKING:
    from airflow.sdk import ObjectStoragePath

log = logging.getLogger(__name__)

_OBJECT_STORES = frozenset(
    ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "adl", "wasb", "wasbs", "oss", "oci", "tos", "obs", "cosn")
)
"""Protocols whose objects become visible only when complete, and where a move is a copy."""

_LONGEST_NAME, _LONGEST_KEY = 255, 1024
"""Maximum bytes of a name in a file system, and of a whole key in an object store."""
_LARGEST_NOTE = 4 * 1024 * 1024
"""Bytes of a sidecar that are compared; receipts are far smaller."""
_LOCK_TIMEOUT = 10.0
"""Seconds to wait for the lock of a folder, which is held briefly."""
_warned: set[tuple[str, str]] = set()
"""Protocols, each with its bucket, about whose unconditional writes the log says enough."""


class PathStore(ImageStore):
    """A file at any URI that ObjectStoragePath opens.

    :param path: The path.
    """

    def __init__(self, path: ObjectStoragePath) -> None:
        self.uri = str(path)
        self._path = path
        self._filesystem = filesystem_of(path.protocol)

    @property
    def _is_local(self) -> bool:
        return self._path.protocol in ("", "file", "local")

    @property
    def _is_object_store(self) -> bool:
        return self._path.protocol in _OBJECT_STORES

    def check(self) -> None:
        if (said := self.name_problem()) is not None:
            raise FluxStoreConfigurationError(said)
        if self._is_local:
            self._check_local(Path(self._path.path))
            return
        try:
            # Loads the filesystem's library and its connection.
            fs = self._path.fs
        except Exception as error:
            if problem := self.misconfiguration(error):
                raise FluxStoreConfigurationError(f"{self.uri} cannot be opened ({problem}).") from error
            raise FluxStoreError(f"{self.uri} cannot be reached ({type(error).__name__}: {error}).") from error
        if self._path.protocol in _OBJECT_STORES:
            self._check_bucket(fs, self._bucket)

    @property
    def _bucket(self) -> str:
        return self._path.path.lstrip("/").partition("/")[0]

    def misconfiguration(self, error: Exception) -> str | None:
        """Return what is wrong with the configuration, with the packages to install if one is missing."""
        problem = super().misconfiguration(error)
        is_unknown = isinstance(error, ImportError) or "No filesystem registered" in str(error)
        if problem and is_unknown and (packages := packages_of(self._path.protocol)):
            return f"{problem}; {self._path.protocol}:// needs these packages: pip install {packages}"
        return problem

    def _check_bucket(self, fs: Any, bucket: str) -> None:
        try:
            fs.info(bucket)
        except FileNotFoundError as error:
            raise FluxStoreConfigurationError(f"There is no bucket {bucket!r} (for {self.uri}).") from error
        except Exception as error:
            if is_refusal(error):
                # Who may only use objects is refused the look at the bucket.
                self._check_permission()
            elif problem := self.misconfiguration(error):
                raise FluxStoreConfigurationError(f"{self.uri} cannot be opened ({problem}).") from error

    def _check_permission(self) -> None:
        try:
            self.read_sidecar(1)
        except Exception as error:
            if is_refusal(error):
                raise FluxStoreConfigurationError(
                    f"{self.uri} cannot be used: the store refuses the connection's credentials or permissions "
                    f"({type(error).__name__}: {str(error).strip().rstrip('.')})."
                ) from error

    def _check_local(self, target: Path) -> None:
        if target.is_dir():
            raise FluxStoreConfigurationError(f"{self.uri} is a folder.")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=target.parent):
                pass
            target.with_name(f"{target.name}.json").exists()
        except OSError as error:
            raise FluxStoreConfigurationError(f"{self.uri} cannot be written ({error}).") from error

    def name_problem(self) -> str | None:
        longest = _LONGEST_KEY if self._is_object_store else _LONGEST_NAME
        name = self._path.path if self._is_object_store else self._path.name
        if len(f"{name}.json".encode()) > longest:
            return (
                f"The name of {self.uri}, with the suffix of its receipt, is longer than the {longest} bytes that fit."
            )
        return None

    def file_of(self, name: str) -> str:
        # Many file systems do not distinguish "A.png" from "a.png": those of macOS and Windows, and network shares.
        return super().file_of(name) if self._is_object_store else super().file_of(name).casefold()

    def sibling(self, name: str) -> PathStore:
        return PathStore(self._path.parent / name)

    def put(self, path: Path, content_type: str, metadata: dict[str, str]) -> None:
        if self._is_local:
            _replace(Path(self._path.path), path)
        else:
            self._write_whole(self._path.path, lambda target: self._put_file(path, target, content_type, metadata))

    def _put_file(self, path: Path, target: str, content_type: str, metadata: dict[str, str]) -> None:
        self._filesystem.put_file(self._path.fs, str(path), target, content_type, metadata)

    def get(self, file: BinaryIO) -> None:
        with self._path.open("rb") as stored:
            shutil.copyfileobj(stored, file)

    def exists(self) -> bool:
        found: bool = self._path.fs.exists(self._path.path)
        return found

    def matches(self, size: int, sha256: str) -> bool:
        try:
            if self._path.fs.size(self._path.path) != size:
                return False
            digest = hashlib.sha256()
            with self._path.open("rb") as stored:
                # Not hashlib.file_digest: files of some remote filesystems can read, and no more.
                while chunk := stored.read(1024 * 1024):
                    digest.update(chunk)
            return digest.hexdigest() == sha256
        except FileNotFoundError:
            return False

    def presigned_url(self, expires: int) -> str:
        try:
            url: str = self._path.fs.sign(self._path.path, expiration=expires)
        except (NotImplementedError, AttributeError):
            return super().presigned_url(expires)
        return url

    def read_sidecar(self, max_bytes: int) -> Sidecar | None:
        try:
            return self._filesystem.read_note(self._path.fs, f"{self._path.path}.json", max_bytes)
        except FileNotFoundError:
            return None

    def write_sidecar(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        if self._is_local:
            return self._write_locked(data, replaces)
        if self._filesystem.has_conditional_writes:
            return self._write_note(f"{self._path.path}.json", data, replaces)
        self._warn_of_unconditional_writes()
        self._check_unchanged(replaces)
        self._write_whole(f"{self._path.path}.json", lambda target: self._write_note(target, data, replaces))
        return Sidecar.of(data)

    def _write_note(self, target: str, data: bytes, replaces: Sidecar | None) -> Sidecar:
        return self._filesystem.write_note(self._path.fs, target, data, replaces)

    def _warn_of_unconditional_writes(self) -> None:
        place = (self._path.protocol, self._bucket if self._is_object_store else "")
        if place not in _warned:
            _warned.add(place)
            log.warning(
                "%s://%s has no conditional writes here. Receipts are written after a look: two tasks that submit the "
                "same recipe for the same place at the same moment can both pay.",
                *place,
            )

    def replace_sidecar(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        if self._is_local:
            return self._write_locked(data, replaces, needs_lock=True)
        if self._filesystem.has_conditional_writes:
            return self._write_note(f"{self._path.path}.json", data, replaces)
        return super().replace_sidecar(data, replaces)

    def _write_locked(self, data: bytes, replaces: Sidecar | None, needs_lock: bool = False) -> Sidecar:
        target = Path(f"{self._path.path}.json")
        target.parent.mkdir(parents=True, exist_ok=True)
        with _part_of(target) as part:
            _write_through(part, io.BytesIO(data))
            with _locked(target.parent, needs_lock):
                self._check_unchanged(replaces)
                if replaces is None:
                    _create(target, part)
                else:
                    part.replace(target)
        return Sidecar.of(data)

    def _check_unchanged(self, expected: Sidecar | None) -> None:
        there = self.read_sidecar(_LARGEST_NOTE)
        if (there and there.version) != (expected and expected.version):
            raise SidecarConflictError(f"{self.uri}.json was written by another process.")

    def _write_whole(self, target: str, write: Callable[[str], object]) -> None:
        """Let ``write`` create a file, so that ``target`` is never incomplete."""
        if self._is_object_store:
            write(target)
            return
        fs, folder = self._path.fs, target.rpartition("/")[0]
        part = f"{folder}/.{uuid.uuid4().hex}.part"
        if folder:
            fs.makedirs(folder, exist_ok=True)
        try:
            write(part)
            self._move(part, target)
        except BaseException:
            with contextlib.suppress(Exception):
                fs.rm_file(part)
            raise

    def _move(self, part: str, target: str) -> None:
        fs = self._path.fs
        try:
            fs.mv(part, target)
            moved = not fs.exists(part)
        except Exception:
            if not (fs.exists(part) and fs.exists(target)):
                raise
            moved = False
        # Some move over no other file, and HDFS over the web does not even say so.
        if not moved:
            fs.rm_file(target)
            fs.mv(part, target)


def _replace(target: Path, source: Path) -> None:
    """Replace ``target`` by a copy of ``source``; it is never incomplete."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with _part_of(target) as part, source.open("rb") as data:
        _write_through(part, data)
        part.replace(target)


@contextlib.contextmanager
def _part_of(target: Path) -> Iterator[Path]:
    """Yield a name for a file that will become ``target``; a file that still has it at the end is removed."""
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield part
    finally:
        part.unlink(missing_ok=True)


def _write_through(part: Path, data: BinaryIO) -> None:
    with part.open("wb") as file:
        shutil.copyfileobj(data, file)
        file.flush()
        os.fsync(file.fileno())


@contextlib.contextmanager
def _locked(folder: Path, needs_lock: bool) -> Iterator[None]:
    """Hold the folder's lock, so that a file does not change between a read and its replacement.

    :param needs_lock: Whether a file system without locks is refused.
    :raises FluxStoreConfigurationError: if it is.
    :raises TimeoutError: if another process holds it for long, which may be stopped in the middle of that.
    """
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        give_up = time.monotonic() + _LOCK_TIMEOUT
        while not _lock(descriptor, folder, needs_lock):
            if time.monotonic() > give_up:
                raise TimeoutError(f"another process has locked {folder} for more than {_LOCK_TIMEOUT:.0f} s")
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int, folder: Path, needs_lock: bool) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if needs_lock:
            raise FluxStoreConfigurationError(
                f"{folder} is in a file system without locks ({error}): several processes cannot write there safely."
            ) from error
        # A network share without locks: the look just before the write is all there is.
        return True
    return True


def _create(target: Path, part: Path) -> None:
    """Give ``part`` the name ``target``, which no file has yet.

    :raises SidecarConflictError: if one has it.
    """
    try:
        os.link(part, target)
    except FileExistsError:
        raise SidecarConflictError(f"{target} was written by another process.") from None
    except OSError:
        # A filesystem without hard links; the lock has to do.
        part.replace(target)
