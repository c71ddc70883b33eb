"""Width and height together: whether an image of that size is made, and which smaller one of its shape is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from airflow_provider_flux.client.models import Model
from airflow_provider_flux.client.values import integer


def too_large(model: Model, given: Mapping[str, Any]) -> str | None:
    """Say that the size is over the model's limit, and name the largest of the same shape; None if it is not."""
    try:
        width, height = integer(given.get("width")), integer(given.get("height"))
    except (ValueError, TypeError, OverflowError):
        return None
    if model.pixels is None or min(width, height) <= 0 or width * height <= model.pixels:
        return None
    parameter = model.parameters["width"]
    fits = largest(width, height, model.pixels, parameter.step or 1, int(parameter.low or 1))
    return (
        f"width and height must make at most {megapixels(model.pixels)} megapixels, not {width} x {height}; "
        f"the largest of this shape is {fits[0]} x {fits[1]}"
    )


def megapixels(pixels: int) -> str:
    """Return the number as the API's documents count it: 2048 x 2048 are four."""
    return f"{pixels / 1024**2:g}"


def largest(width: int, height: int, pixels: int, step: int, low: int) -> tuple[int, int]:
    """Return the largest size of about this shape that has at most ``pixels``, in multiples of ``step``.

    The shape is kept exactly where that costs little of the size.
    """
    if height > width:
        return largest(height, width, pixels, step, low)[::-1]
    scale = math.sqrt(pixels / (width * height))
    short = max(low, _down(height * scale, step))
    about = _down(pixels / short, step) if short > height * scale else _down(width * scale, step)
    common = math.gcd(width, height)
    unit = (width // common * step, height // common * step)
    times = math.isqrt(pixels // (unit[0] * unit[1]))
    exact = (unit[0] * times, unit[1] * times)
    return exact if exact[1] >= low and exact[0] * exact[1] >= 0.9 * about * short else (about, short)


def _down(number: float, step: int) -> int:
    return int(number // step) * step
