"""Capture an image from its delivery URL: stream it to a file, cap its size, hash it, check that it is whole.

The file is stored as it was delivered, byte by byte, with all the metadata that is in it.

An image counts only after this: HTTP 200 and an image's content type prove nothing.
"""

from __future__ import annotations

import hashlib
import mmap
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from airflow_provider_flux.exceptions import FluxBadImageError, FluxImageTooLargeError
from airflow_provider_flux.images import pixels
from airflow_provider_flux.images.content_credentials import has_content_credentials

MAX_BYTES = 64 * 1024 * 1024
"""Largest accepted image in bytes, by default."""

CONTENT_TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
"""Formats that are taken, by Pillow's name, and the MIME type of each."""


@dataclass(frozen=True, slots=True)
class Image:
    """What a captured file was found to be.

    :param format: ``"png"``, ``"jpeg"`` or ``"webp"``, as found in the file.
    :param width: Pixels.
    :param height: Pixels.
    :param bytes: Size of the file.
    :param sha256: Hash of the file, in hex.
    :param content_credentials: Whether content credentials (C2PA) are in the file; they are not verified.
    """

    format: str
    width: int
    height: int
    bytes: int
    sha256: str
    content_credentials: bool

    @property
    def content_type(self) -> str:
        """The MIME type to store it with."""
        return CONTENT_TYPES[self.format.upper()]

    def to_dict(self) -> dict[str, Any]:
        """Return flat JSON."""
        return asdict(self)


def save_verified(chunks: Iterable[bytes], path: Path, job_id: str | None, max_bytes: int = MAX_BYTES) -> Image:
    """Write ``chunks`` to ``path`` and return what they turned out to be.

    :param max_bytes: More than this is refused.
    :raises FluxImageTooLargeError: if it is larger.
    :raises FluxBadImageError: if it is not one whole PNG, JPEG or WebP image.
    """
    digest, size = hashlib.sha256(), 0
    with path.open("wb") as file:
        for chunk in chunks:
            size += len(chunk)
            if size > max_bytes:
                raise FluxImageTooLargeError(
                    f"The image of job {job_id} is larger than max_bytes={max_bytes}.", job_id=job_id
                )
            digest.update(chunk)
            file.write(chunk)
    if not size:
        raise FluxBadImageError(f"The image of job {job_id} is empty.", job_id=job_id)
    picture, content_credentials = probe_image(path, job_id)
    return Image(picture.format, picture.width, picture.height, size, digest.hexdigest(), content_credentials)


def probe_image(path: Path, job_id: str | None) -> tuple[pixels.Picture, bool]:
    """Return the image in ``path``, and whether content credentials are in the file.

    :raises FluxBadImageError: if it does not decode to its last pixel, or its end is missing.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            picture, content_credentials = pixels.examine(data), has_content_credentials(data)
        picture.decode()
    except pixels.NotAnImageError as error:
        raise FluxBadImageError(
            f"What was delivered for job {job_id} is not a PNG, JPEG or WebP image.", job_id=job_id
        ) from error
    except pixels.BrokenImageError as error:
        raise FluxBadImageError(f"The image of job {job_id} is broken ({error}).", job_id=job_id) from error
    return picture, content_credentials
