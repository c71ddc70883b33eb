"""Thumbnails: made once of each image, kept in a folder of bounded size."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import os
import tempfile
import threading
import uuid
from collections.abc import Callable
from pathlib import Path

from airflow.configuration import conf

from airflow_provider_flux.gallery.reading import UnreadableError
from airflow_provider_flux.gallery.results import Image
from airflow_provider_flux.images import pixels

SIDE = 320
CONTENT_TYPE = "image/webp"
MAX_FILES = 20_000
"""So many are kept, 10 to 20 kB each; when there are more, a quarter goes, oldest first."""

_lock = threading.Lock()
_since_swept = MAX_FILES  # so that the first one sweeps what an earlier process left


def thumbnail(image: Image, read: Callable[[Image], bytes]) -> bytes:
    """Return the image's thumbnail, upright, WebP of at most 320 pixels a side.

    :param read: Gives the image's bytes; called only if there is no thumbnail yet.
    :raises UnreadableError: if there is no image, or what lies there is none.
    """
    # Not by hash alone: who knows an image's hash may not see it unless a result names its place too.
    name = hashlib.sha256(f"{image.sha256} {image.uri}".encode()).hexdigest()
    path = folder() / f"{name}.webp"
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    data = shrink(read(image))
    _keep(path, data)
    return data


def shrink(data: bytes) -> bytes:
    """Return the image, shrunk and upright.

    :raises UnreadableError: if it is not a PNG, JPEG or WebP image.
    """
    file = io.BytesIO()
    try:
        pixels.examine(data).thumbnail(SIDE).save(file, "WEBP", quality=80, method=2)
    except (pixels.NotAnImageError, pixels.BrokenImageError) as error:
        raise UnreadableError("What lies there is no PNG, JPEG or WebP image.") from error
    return file.getvalue()


@functools.cache
def folder() -> Path:
    """Return the folder that thumbnails are kept in; nobody else can write there."""
    if configured := conf.get("flux", "gallery_cache_folder", fallback=""):
        path = Path(configured)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path
    path = Path(tempfile.gettempdir()) / f"airflow-flux-thumbnails-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    is_ours = not path.is_symlink() and path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o022
    return path if is_ours else Path(tempfile.mkdtemp(prefix="airflow-flux-thumbnails-"))


def _keep(path: Path, data: bytes) -> None:
    part = path.with_name(f".{uuid.uuid4().hex}.part")
    # A full or vanished disk costs time, not the page.
    with contextlib.suppress(OSError):
        part.write_bytes(data)
        part.replace(path)
        _sweep(path.parent)


def _sweep(place: Path) -> None:
    global _since_swept
    with _lock:
        _since_swept += 1
        if _since_swept < MAX_FILES // 20:
            return
        _since_swept = 0
    files = sorted(place.glob("*.webp"), key=lambda file: file.stat().st_mtime)
    if len(files) > MAX_FILES:
        for file in files[: len(files) - MAX_FILES * 3 // 4]:
            file.unlink(missing_ok=True)
