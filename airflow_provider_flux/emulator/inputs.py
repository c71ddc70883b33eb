"""The input images of a request: decoding them, checking their limits, and their sizes."""

from __future__ import annotations

import base64
import io
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from PIL import ExifTags, Image

from airflow_provider_flux.emulator.models import MEGAPIXEL, Model

Size = tuple[int, int]

MAX_BYTES = 20 * 1024 * 1024
_ROTATED = (5, 6, 7, 8)


class UnusableImageError(ValueError):
    """An input image is neither a URL nor a base64 image within the limits, or a mask does not match (HTTP 400)."""


def check_images(model: Model, body: Mapping[str, Any], base64_only: Collection[str] = ()) -> None:
    """Check all input images of a validated body, and that a mask has the size of its image.

    :param base64_only: fields that do not accept a URL, unless the model accepts it in all of them.
    :raises UnusableImageError: an image is invalid.
    """
    is_fast = "mode" in model.parameters and body.get("mode") == "fast"
    for name, image in _input_images(model, body):
        needs_base64 = is_fast or (name in base64_only and not model.urls)
        if needs_base64 and _is_url(image):
            raise UnusableImageError(f"{name}: not a base64 encoded image")
        width, height = image_size(name, image)
        _check_size(model, name, width, height)
        if is_fast and max(width, height) > 8 * min(width, height):
            raise UnusableImageError(f"{name}: more than 8 times as long as wide")
    has_mask = "mask" in model.parameters and body.get("mask")
    # The size of an image behind a URL is unknown.
    if not has_mask or _is_url(body["mask"]) or _is_url(body["image"]):
        return
    if image_size("mask", body["mask"]) != image_size("image", body["image"]):
        raise UnusableImageError("mask: must have the same size as image")


def megapixels(model: Model, body: Mapping[str, Any]) -> float:
    """Return the total size of all input images of a validated body, in megapixels of 1024 x 1024."""
    sizes = (image_size(name, image) for name, image in _input_images(model, body))
    return round(sum(width * height for width, height in sizes) / MEGAPIXEL, 2)


def image_size(name: str, value: str) -> Size:
    """Return width and height in pixels of an input image as it is displayed.

    :param name: the field, for the error message.
    :param value: a URL, a data URI or bare base64. A URL is not fetched and counts as 1024 x 1024.
    :raises UnusableImageError: the text is not an image, or the image has more than 20 MB.
    """
    if _is_url(value):
        return 1024, 1024
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        data = base64.b64decode(value, validate=True)
        with Image.open(io.BytesIO(_without_metadata(data))) as image:
            width, height = image.size[::-1] if _is_rotated(image) else image.size
            image.verify()
    except Image.DecompressionBombError:
        raise UnusableImageError(f"{name}: too many pixels") from None
    except Exception:
        raise UnusableImageError(f"{name}: not a URL and not a base64 encoded image") from None
    if len(data) > MAX_BYTES:
        raise UnusableImageError(f"{name}: larger than 20 MB")
    return width, height


def _is_url(value: str) -> bool:
    return value.startswith(("http://", "https://"))


def _check_size(model: Model, name: str, width: int, height: int) -> None:
    if width * height > model.max_input_pixels:
        raise UnusableImageError(f"{name}: larger than {model.max_input_pixels // 1_000_000} megapixels")
    if min(width, height) < model.min_input_side:
        raise UnusableImageError(f"{name}: each side must have at least {model.min_input_side} pixels")


def _input_images(model: Model, body: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for name, parameter in model.parameters.items():
        if parameter.kind in ("image", "images") and (value := body.get(name)) is not None:
            yield from ((name, image) for image in ([value] if isinstance(value, str) else value))


def _without_metadata(data: bytes) -> bytes:
    """Return a PNG without its texts and profiles, of which Pillow refuses to open large ones."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    kept, start = data[:8], 8
    while start < len(data):
        end = start + 12 + int.from_bytes(data[start : start + 4])
        if data[start + 4 : start + 5].isupper() or data[start + 4 : start + 8] == b"eXIf":
            kept += data[start:end]
        start = end
    return kept


def _is_rotated(image: Image.Image) -> bool:
    try:
        return "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in _ROTATED
    except Exception:
        return False
