"""The size of the image that a request asks for."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_flux.emulator.inputs import Size, image_size
from airflow_provider_flux.emulator.models import MEGAPIXEL, Model

# The input image whose shape the output has, if the request contains it.
_SHAPE_SOURCES = ("image", "control_image", "preprocessed_image", "input_image", "person")
# WebP has no image with a longer side than 16383 pixels.
_LONGEST = 8192
_MEGAPIXELS = {"768sq": 0.5625, "1k": 1.0, "1.5k": 2.25, "2k": 4.0, "4k": 16.0}
_MARGINS = (("left", "right"), ("top", "bottom"))


def output_size(model: Model, body: Mapping[str, Any]) -> Size:
    """Return width and height in pixels of the image that a validated body asks for."""
    parameters = model.parameters
    if body.get("width") and body.get("height"):
        return _fit(model, (body["width"], body["height"]))
    name = next((name for name in _SHAPE_SOURCES if name in parameters and body.get(name)), None)
    source = image_size(name, body[name]) if name else None
    if "aspect_ratio" in parameters:
        return _size_of_ratio(model, body, source or (1, 1))
    if "width" not in parameters:
        across, down = (sum(body.get(margin) or 0 for margin in pair) for pair in _MARGINS)
        source = source or (1024, 1024)
        return _fit(model, (source[0] + across, source[1] + down))
    # Likely: FLUX.2 follows its first input image; two sources say so, and the schema is silent.
    if source and not (body.get("width") or body.get("height")):
        return _fit(model, source)
    width, height = body.get("width"), body.get("height")
    return _fit(
        model,
        (
            width or _missing_side(model, parameters["width"].default or 1024, height),
            height or _missing_side(model, parameters["height"].default or 1024, width),
        ),
    )


def _missing_side(model: Model, default: int, other_side: int | None) -> int:
    """Return a side that the request does not set, so that the image keeps to the model's maximum size."""
    if model.max_megapixels is None or other_side is None:
        return default
    return min(default, int(model.max_megapixels * MEGAPIXEL / other_side))


def _size_of_ratio(model: Model, body: Mapping[str, Any], source: Size) -> Size:
    ratio = body.get("aspect_ratio") or model.parameters["aspect_ratio"].default or "auto"
    width, height = source if ratio == "auto" else map(int, ratio.split(":"))
    pixels = _MEGAPIXELS.get(body.get("resolution", ""), model.area) * MEGAPIXEL
    return _multiple(16, math.sqrt(pixels * width / height)), _multiple(16, math.sqrt(pixels * height / width))


def _fit(model: Model, size: Size) -> Size:
    """Return the size that is drawn: on the model's grid, and scaled down if the model does that with large images."""
    if not model.fits:
        return size
    width, height = (_multiple(model.grid, min(side, _LONGEST)) for side in size)
    scale = math.sqrt((model.max_megapixels or math.inf) * MEGAPIXEL / (width * height))
    if scale >= 1:
        return width, height
    return _multiple(model.grid, width * scale, math.floor), _multiple(model.grid, height * scale, math.floor)


def _multiple(grid: int, length: float, rounding: Callable[[float], int] = round) -> int:
    return max(grid, rounding(length / grid) * grid)
