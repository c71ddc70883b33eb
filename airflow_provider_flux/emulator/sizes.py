"""The size of the image that a request asks for."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from airflow_provider_flux.emulator.inputs import Size, image_size
from airflow_provider_flux.emulator.models import MEGAPIXEL, Model

# The input image whose shape the output has, if the request contains it.
_SHAPE_SOURCES = ("image", "control_image", "preprocessed_image", "input_image")
_MEGAPIXELS = {"768sq": 0.5625, "1k": 1.0, "1.5k": 2.25, "2k": 4.0, "4k": 16.0}
_MARGINS = (("left", "right"), ("top", "bottom"))


def output_size(model: Model, body: Mapping[str, Any]) -> Size:
    """Return width and height in pixels of the image that a validated body asks for."""
    parameters = model.parameters
    if "width" in parameters:
        return _explicit_size(model, body)
    name = next((name for name in _SHAPE_SOURCES if name in parameters and body.get(name)), None)
    source = image_size(name, body[name]) if name else (1, 1)
    if "aspect_ratio" not in parameters:
        across, down = (sum(body.get(margin) or 0 for margin in pair) for pair in _MARGINS)
        return source[0] + across, source[1] + down
    ratio = body.get("aspect_ratio") or parameters["aspect_ratio"].default or "auto"
    width, height = source if ratio == "auto" else map(int, ratio.split(":"))
    pixels = _MEGAPIXELS.get(body.get("resolution", ""), model.area) * MEGAPIXEL
    return _multiple_of_16(math.sqrt(pixels * width / height)), _multiple_of_16(math.sqrt(pixels * height / width))


def _explicit_size(model: Model, body: Mapping[str, Any]) -> Size:
    width, height = body.get("width"), body.get("height")
    return (
        width or _fit_side(model, model.parameters["width"].default, height),
        height or _fit_side(model, model.parameters["height"].default, width),
    )


def _fit_side(model: Model, default: int, other_side: int | None) -> int:
    """Return a side that the request does not set, so that the image keeps to the model's maximum size."""
    if model.max_megapixels is None or other_side is None:
        return default
    return min(default, int(model.max_megapixels * MEGAPIXEL / other_side) // 16 * 16)


def _multiple_of_16(length: float) -> int:
    return max(16, round(length / 16) * 16)
