"""One value of one parameter: read from what an author wrote or a template rendered, and checked against its range."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_flux.arguments import parse_list
from airflow_provider_flux.client.catalogue.models import BASE64, URL, Kind, Model, Parameter

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
_SHOWN = ("integer", "number", "boolean", "choice", "ratio")
# The smallest PNG there is takes more; anything shorter is a word, not an image.
_LEAST_BASE64 = 64


class ImageToken(str):
    """Stands for an input image that is put in its place when the request is sent."""


def read(parameter: Parameter, value: Any) -> Any:
    """Return ``value`` as the API takes it.

    :raises ValueError: saying what it must be; the message never holds a prompt, an image or a secret.
    """
    try:
        typed = parse(parameter, value)
    except ValueError:
        raise ValueError(f"must be {describe(parameter)}{_shown(parameter, value)}") from None
    if parameter.kind in ("integer", "number") and typed != (nearest := fit(parameter, typed)):
        raise ValueError(f"must be {describe(parameter)}, not {typed}; the nearest is {nearest}")
    return typed


def parse(parameter: Parameter, value: Any) -> Any:
    """Return ``value`` in the parameter's kind; a number may be out of its range.

    :raises ValueError: without a message.
    """
    try:
        return _READERS[parameter.kind](parameter, value)
    except (ValueError, TypeError, OverflowError, SyntaxError):
        raise ValueError from None


def fit(parameter: Parameter, number: float) -> float:
    """Return the number nearest to ``number`` that is within the range and on the grid."""
    low = -math.inf if parameter.low is None else parameter.low
    high = math.inf if parameter.high is None else parameter.high
    number = min(max(number, low), high)
    step = parameter.step
    return number if step is None else (number + step // 2) // step * step


def integer(value: Any) -> int:
    """Return the whole number that ``value`` is or spells.

    :raises ValueError: if it is none.
    """
    number = _number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def prompt_text(value: Any) -> Any:
    """Return a prompt as the API takes it: of a dict or list the JSON text, of a number or bool its text.

    :raises ValueError: if it cannot be sent as text.
    """
    if isinstance(value, (dict, list)):
        try:
            text = json.dumps(value, ensure_ascii=False, allow_nan=False)
            text.encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise ValueError(f"cannot be sent as JSON ({error})") from None
        return text
    # Native rendering turns a prompt like "1984" into a number.
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"must be text, not the number {value}")
    return str(value) if isinstance(value, (bool, int, float)) else value


def describe(parameter: Parameter) -> str:
    """Return what the parameter takes, as it reads after "must be"."""
    if parameter.kind == "choice":
        return f"one of {', '.join(parameter.choices)}"
    if parameter.kind == "ratio":
        widest = parameter.widest or "1:1"
        narrowest = ":".join(reversed(widest.split(":")))
        return f"a ratio such as 16:9, from {narrowest} to {widest}"
    if parameter.kind == "url":
        return f"an http(s) URL of at most {parameter.high:g} characters"
    if parameter.kind == "image":
        return _describe_image(parameter)
    if parameter.kind == "images":
        return f"a list of at most {parameter.high:g}, each {_describe_image(parameter)}"
    return f"{_NOUNS[parameter.kind]}{_describe_range(parameter)}"


_NOUNS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "text": "text"}


def _describe_range(parameter: Parameter) -> str:
    bounds = ""
    if parameter.low is not None:
        bounds = f" of at least {parameter.low:g}"
        if parameter.high is not None:
            bounds = f" from {parameter.low:g} to {parameter.high:g}"
    return bounds + (f" that is a multiple of {parameter.step}" if parameter.step else "")


def _describe_image(parameter: Parameter) -> str:
    forms = ["an http(s) URL" if form != BASE64 else "base64 (also as a data: URI)" for form in parameter.forms]
    return f"an image as {' or '.join(forms)}"


def _shown(parameter: Parameter, value: Any) -> str:
    if parameter.kind in _SHOWN:
        return f", not {str(value)[:100]!r}"
    return (
        f", not this text of {len(value)} characters" if isinstance(value, str) else f", not a {type(value).__name__}"
    )


def _read_integer(_: Parameter, value: Any) -> int:
    return integer(value)


def _read_number(_: Parameter, value: Any) -> int | float:
    return _number(value)


def _number(value: Any) -> int | float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    if isinstance(value, (int, float)):
        return value
    try:
        whole = int(value)
    except ValueError:
        return float(value)
    # int() reads text as it stands, but cuts a Decimal off.
    return whole if isinstance(value, str) or whole == value else float(value)


def _read_boolean(_: Parameter, value: Any) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError


def _read_text(_: Parameter, value: Any) -> str:
    # Native rendering turns a prompt like "1984" into a number.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError
    return str(value)


def _read_choice(parameter: Parameter, value: Any) -> str:
    text = _read_text(parameter, value)
    word = text.strip().lower()
    if parameter.choices and word not in parameter.choices:
        raise ValueError
    # Where the words are not known, neither is whether "4K" may be written small.
    return word if parameter.choices else text


def _read_ratio(parameter: Parameter, value: Any) -> str:
    text = _read_text(parameter, value).strip()
    if not re.fullmatch(r"[1-9]\d{0,3}:[1-9]\d{0,3}", text, re.ASCII):
        raise ValueError
    ratio = _ratio(text)
    if parameter.widest and max(ratio, 1 / ratio) > _ratio(parameter.widest):
        raise ValueError
    return text


def _ratio(text: str) -> Fraction:
    width, _, height = text.partition(":")
    return Fraction(int(width), int(height))


def _read_url(parameter: Parameter, value: Any) -> str:
    url = _read_text(parameter, value).strip()
    if not _is_url(url) or len(url) > (parameter.high or math.inf):
        raise ValueError
    return url


def _is_url(text: str) -> bool:
    return bool(re.fullmatch(r"https?://[^\s]+", text, re.IGNORECASE)) and bool(urlsplit(text).hostname)


def _read_image(parameter: Parameter, value: Any) -> str:
    if isinstance(value, ImageToken):
        return value
    if not isinstance(value, str):
        raise ValueError
    if URL in parameter.forms and _is_url(value.strip()):
        return value.strip()
    # base64 is often wrapped in lines, which not every decoder takes.
    image = "".join(value.split())
    if BASE64 not in parameter.forms or not _is_base64(image):
        raise ValueError
    return image


def _is_base64(text: str) -> bool:
    data = re.sub(r"\Adata:[^,]{0,100};base64,", "", text[:200], flags=re.IGNORECASE) + text[200:]
    return len(data) >= _LEAST_BASE64 and re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", data) is not None


def _read_images(parameter: Parameter, value: Any) -> list[str]:
    images = [value] if (listed := parse_list(value)) is None else listed
    if len(images) > (parameter.high or math.inf):
        raise ValueError
    return [_read_image(parameter, image) for image in images]


_READERS: dict[Kind, Callable[[Parameter, Any], Any]] = {
    "integer": _read_integer,
    "number": _read_number,
    "boolean": _read_boolean,
    "text": _read_text,
    "choice": _read_choice,
    "ratio": _read_ratio,
    "url": _read_url,
    "image": _read_image,
    "images": _read_images,
}


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
