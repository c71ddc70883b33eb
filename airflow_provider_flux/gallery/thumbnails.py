"""Thumbnails: made once per image, cached in a folder of bounded size."""

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

from airflow_provider_flux.gallery.reading import NOT_AN_IMAGE, UnreadableError
from airflow_provider_flux.gallery.results import GalleryImage
from airflow_provider_flux.images import pixels

MAX_SIDE = 320
"""Longest side of a thumbnail, in pixels."""
CONTENT_TYPE = "image/webp"
MAX_FILES = 20_000
"""Number of thumbnails that are cached, 10 to 20 kB each; above it, the oldest quarter is deleted."""

_lock = threading.Lock()
# At the limit from the start: the first write also deletes what an earlier process cached.
_writes_since_eviction = MAX_FILES


def thumbnail(image: GalleryImage, read: Callable[[GalleryImage], bytes]) -> bytes:
    """Return the image's thumbnail, upright, as WebP of at most 320 pixels a side.

    :param read: Returns the image's bytes; called only if the thumbnail is not cached.
    :raises UnreadableError: if the image cannot be read or is not an image.
    """
    # The name includes the URI: knowing an image's hash must not be enough to see it.
    name = hashlib.sha256(f"{image.sha256} {image.uri}".encode()).hexdigest()
    path = cache_folder() / f"{name}.webp"
    with contextlib.suppress(FileNotFoundError):
        return path.read_bytes()
    data = shrink(read(image))
    _cache(path, data)
    return data


def shrink(data: bytes) -> bytes:
    """Return the image as an upright thumbnail.

    :raises UnreadableError: if it is not an intact PNG, JPEG or WebP image.
    """
    file = io.BytesIO()
    try:
        pixels.examine(data).thumbnail(MAX_SIDE).save(file, "WEBP", quality=80, method=2)
    except (pixels.NotAnImageError, pixels.BrokenImageError) as error:
        raise UnreadableError(NOT_AN_IMAGE) from error
    return file.getvalue()


@functools.cache
def cache_folder() -> Path:
    """Return the folder of the cached thumbnails; no other user can write to it."""
    if configured := conf.get("flux", "gallery_cache_folder", fallback=""):
        path = Path(configured)
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
        return path
    path = Path(tempfile.gettempdir()) / f"airflow-flux-thumbnails-{os.getuid()}"
    path.mkdir(mode=0o700, exist_ok=True)
    is_private = not path.is_symlink() and path.stat().st_uid == os.getuid() and not path.stat().st_mode & 0o022
    return path if is_private else Path(tempfile.mkdtemp(prefix="airflow-flux-thumbnails-"))


def _cache(path: Path, data: bytes) -> None:
    partial = path.with_name(f".{uuid.uuid4().hex}.part")
    # A full or missing disk makes the page slower; it must not break it.
    with contextlib.suppress(OSError):
        partial.write_bytes(data)
        partial.replace(path)
        _evict_oldest(path.parent)


def _evict_oldest(folder: Path) -> None:
    global _writes_since_eviction
    with _lock:
        _writes_since_eviction += 1
        if _writes_since_eviction < MAX_FILES // 20:
            return
        _writes_since_eviction = 0
    files = sorted(folder.glob("*.webp"), key=lambda file: file.stat().st_mtime)
    if len(files) > MAX_FILES:
        for file in files[: len(files) - MAX_FILES * 3 // 4]:
            file.unlink(missing_ok=True)
