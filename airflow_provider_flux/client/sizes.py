"""Width and height together: whether an image of that size is made, and which smaller one of its shape is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from airflow_provider_flux.client.models import Model
from airflow_provider_flux.client.values import fit, integer


def too_large(model: Model, given: Mapping[str, Any]) -> str | None:
    """Say that the size is over the model's limit, and name the largest of the same shape; None if it is not.

    A size that fits, but whose sides do not once each is on the grid, is over it too. A side that is not given is the
    model's choice, so it counts as the least there is.
    """
    if model.pixels is None:
        return None
    parameter = model.parameters["width"]
    step, low = parameter.step or 1, int(parameter.low or 1)
    try:
        width, height = (integer(given.get(side, low)) for side in ("width", "height"))
    except (ValueError, TypeError, OverflowError):
        return None
    if min(width, height) <= 0:
        return None
    rounded = fit(parameter, width) * fit(parameter, height)
    if max(width * height, rounded) <= model.pixels:
        return None
    asked = f"{width} x {height}" + ("" if {"width", "height"} <= given.keys() else " or more")
    fits = largest(width, height, model.pixels, step, low)
    return (
        f"width and height must be multiples of {step} that make at most {megapixels(model.pixels)} megapixels, "
        f"not {asked}; the largest of this shape is {fits[0]} x {fits[1]}"
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
    about = min(_up(width * scale, step), _down(pixels / short, step))
    common = math.gcd(width, height)
    unit = (width // common * step, height // common * step)
    times = math.isqrt(pixels // (unit[0] * unit[1]))
    exact = (unit[0] * times, unit[1] * times)
    return exact if exact[1] >= low and exact[0] * exact[1] >= 0.9 * about * short else (about, short)


def _down(number: float, step: int) -> int:
    return int(number // step) * step


def _up(number: float, step: int) -> int:
    return -_down(-number, step)
