"""Reference images in a request: is it one, and how large is it?"""

from __future__ import annotations

import base64
import io
import math
from typing import Any

from PIL import ExifTags, Image

from airflow_provider_flux.emulator.models import Model

MAX_BYTES = 20 * 1024 * 1024
MAX_PIXELS = 20_000_000
MIN_SIDE = 256
MEGAPIXEL = 1024 * 1024
_FOLLOWED = ("image", "control_image", "preprocessed_image", "input_image")
_RESOLUTIONS = {"768sq": 0.5625, "1k": 1.0, "1.5k": 2.25, "2k": 4.0, "4k": 16.0}


class UnusableImageError(ValueError):
    """An input image is neither a URL nor a base64 image within the limits, or a mask does not fit (HTTP 400)."""


def input_size(name: str, value: str) -> tuple[int, int]:
    """Width and height in pixels of an input image given as URL, data URI or bare base64, as it is displayed.

    A URL is not fetched and counts as 1024 x 1024.

    :raises UnusableImageError: the text is no image, or one over 20 MB or 20 megapixels, or with a side under 256.
    """
    if value.startswith(("http://", "https://")):
        return 1024, 1024
    if value.startswith("data:"):
        value = value.partition(",")[2]
    try:
        data = base64.b64decode(value, validate=True)
        with Image.open(io.BytesIO(_pixels_of(data))) as image:
            width, height = image.size[::-1] if _lies_on_its_side(image) else image.size
            image.verify()
    except Image.DecompressionBombError:
        raise UnusableImageError(f"{name}: larger than 20 megapixels") from None
    except Exception:
        raise UnusableImageError(f"{name}: not a URL and not a base64 encoded image") from None
    if len(data) > MAX_BYTES or width * height > MAX_PIXELS:
        raise UnusableImageError(f"{name}: larger than 20 MB or 20 megapixels")
    if min(width, height) < MIN_SIDE:
        raise UnusableImageError(f"{name}: each side must have at least {MIN_SIDE} pixels")
    return width, height


def _pixels_of(data: bytes) -> bytes:
    """Return the image without the texts and profiles of a PNG, some of which Pillow is too careful to open."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return data
    kept, at = data[:8], 8
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])
        if data[at + 4 : at + 5].isupper() or data[at + 4 : at + 8] == b"eXIf":
            kept += data[at:end]
        at = end
    return kept


def _lies_on_its_side(image: Image.Image) -> bool:
    try:
        return "exif" in image.info and image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
    except Exception:
        return False


def check_mask(body: dict[str, Any]) -> None:
    """Compare the mask of a checked body, if it has one, with its image.

    :raises UnusableImageError: they differ in size.
    """
    if body.get("mask") and input_size("mask", body["mask"]) != input_size("image", body["image"]):
        raise UnusableImageError("mask: must have the same size as image")


def megapixels(model: Model, body: dict[str, Any]) -> float:
    """Megapixels of all the input images in a checked body."""
    sizes = []
    for name, rule in model.parameters.items():
        if rule.kind in ("image", "images") and body.get(name):
            values = [body[name]] if rule.kind == "image" else body[name]
            sizes += [input_size(name, value) for value in values]
    return round(sum(width * height for width, height in sizes) / MEGAPIXEL, 2)


def output_size(model: Model, body: dict[str, Any]) -> tuple[int, int]:
    """Width and height in pixels of the image that a checked body asks for."""
    rules = model.parameters
    if "width" in rules:
        width, height = body.get("width"), body.get("height")
        across = width or _side(model, rules["width"].default, height)
        return across, height or _side(model, rules["height"].default, width)
    followed = next((name for name in _FOLLOWED if name in rules and body.get(name)), None)
    source = input_size(followed, body[followed]) if followed else (1, 1)
    if "aspect_ratio" not in rules:
        across, down = (sum(body.get(side, 0) for side in pair) for pair in _MARGINS)
        return source[0] + across, source[1] + down
    ratio = body.get("aspect_ratio") or rules["aspect_ratio"].default or "auto"
    width, height = source if ratio == "auto" else map(int, ratio.split(":"))
    area = _RESOLUTIONS.get(body.get("resolution", ""), model.area) * MEGAPIXEL
    return _sixteens(math.sqrt(area * width / height)), _sixteens(math.sqrt(area * height / width))


def _side(model: Model, usual: int, other: int | None) -> int:
    """Length of a side that the request leaves to the model."""
    if model.max_megapixels is None or other is None:
        return usual
    return min(usual, int(model.max_megapixels * MEGAPIXEL / other) // 16 * 16)


_MARGINS = (("left", "right"), ("top", "bottom"))


def _sixteens(length: float) -> int:
    return max(16, round(length / 16) * 16)
