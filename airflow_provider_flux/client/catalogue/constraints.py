"""The constraints of one parameter, and of the size: a value is coerced to its type and checked against its range."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_flux.arguments import parse_list
from airflow_provider_flux.client.catalogue.schema import BASE64, URL, Model, Parameter, ParameterType

_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")
# Values of the other types may be a prompt, an image or a secret, which no error message may quote.
_QUOTABLE_TYPES = ("integer", "number", "boolean", "choice", "ratio")
# The smallest possible PNG is longer; anything shorter is a word, not an image.
_MIN_BASE64_LENGTH = 64


class ImageToken(str):
    """Placeholder for an input image, which replaces it when the request is sent."""


def validate_value(parameter: Parameter, value: Any) -> Any:
    """Return ``value`` coerced to the parameter's type.

    :raises ValueError: if it violates a constraint; the message never quotes a prompt, an image or a secret.
    """
    try:
        coerced = coerce(parameter, value)
    except ValueError:
        raise ValueError(f"must be {constraint_text(parameter)}{_received(parameter, value)}") from None
    if parameter.type in ("integer", "number") and coerced != (nearest := clamp(parameter, coerced)):
        raise ValueError(f"must be {constraint_text(parameter)}, not {coerced}; the nearest is {nearest}")
    return coerced


def coerce(parameter: Parameter, value: Any) -> Any:
    """Return ``value`` in the parameter's type; a number may be out of range.

    :raises ValueError: without a message.
    """
    try:
        return _COERCERS[parameter.type](parameter, value)
    except (ValueError, TypeError, OverflowError, SyntaxError):
        raise ValueError from None


def clamp(parameter: Parameter, number: float) -> float:
    """Return the valid number that is nearest to ``number``."""
    minimum = -math.inf if parameter.minimum is None else parameter.minimum
    maximum = math.inf if parameter.maximum is None else parameter.maximum
    number = min(max(number, minimum), maximum)
    if (step := parameter.multiple_of) is None:
        return number
    nearest = (number + step // 2) // step * step
    return nearest - step if nearest > maximum else nearest + step if nearest < minimum else nearest


def parse_integer(value: Any) -> int:
    """Return the whole number that ``value`` is, also as text.

    :raises ValueError: if it is not a whole number.
    """
    number = _parse_number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def prompt_text(value: Any) -> Any:
    """Return a prompt as the API takes it: a dict or list as JSON text, a number or bool as text.

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


def constraint_text(parameter: Parameter) -> str:
    """Return what the parameter takes, as it reads after "must be"."""
    if parameter.type == "choice":
        return f"one of {', '.join(parameter.choices)}"
    if parameter.type == "ratio":
        widest = parameter.max_aspect_ratio or "1:1"
        narrowest = ":".join(reversed(widest.split(":")))
        return f"a ratio such as 16:9, from {narrowest} to {widest}"
    if parameter.type == "url":
        return f"an http(s) URL of at most {parameter.maximum:g} characters"
    if parameter.type == "image":
        return _image_text(parameter)
    if parameter.type == "images":
        return f"a list of at most {parameter.maximum:g}, each {_image_text(parameter)}"
    if parameter.type == "text" and parameter.maximum is not None:
        return f"text of at most {parameter.maximum:g} characters"
    return f"{_NOUNS[parameter.type]}{_range_text(parameter)}"


_NOUNS = {"integer": "a whole number", "number": "a number", "boolean": "true or false", "text": "text"}


def _range_text(parameter: Parameter) -> str:
    bounds = ""
    if parameter.minimum is not None:
        bounds = f" of at least {parameter.minimum:g}"
        if parameter.maximum is not None:
            bounds = f" from {parameter.minimum:g} to {parameter.maximum:g}"
    return bounds + (f" that is a multiple of {parameter.multiple_of}" if parameter.multiple_of else "")


def _image_text(parameter: Parameter) -> str:
    texts = (
        "an http(s) URL" if encoding == URL else "base64 (also as a data: URI)" for encoding in parameter.encodings
    )
    return f"an image as {' or '.join(texts)}"


def _received(parameter: Parameter, value: Any) -> str:
    if parameter.type in _QUOTABLE_TYPES:
        return f", not {str(value)[:100]!r}"
    if parameter.type == "images" and (listed := parse_list(value)) is not None:
        return f", not a list of {len(listed)}"
    if isinstance(value, str):
        return f", not text of {len(value)} characters"
    return f", not a value of type {type(value).__name__}"


def _coerce_integer(_: Parameter, value: Any) -> int:
    return parse_integer(value)


def _coerce_number(_: Parameter, value: Any) -> int | float:
    return _parse_number(value)


def _parse_number(value: Any) -> int | float:
    if isinstance(value, bool) or not math.isfinite(float(value)):
        raise ValueError
    if isinstance(value, (int, float)):
        return value
    try:
        whole = int(value)
    except ValueError:
        return float(value)
    # int() rejects text with a fraction, but truncates a Decimal.
    return whole if isinstance(value, str) or whole == value else float(value)


def _coerce_boolean(_: Parameter, value: Any) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError


def _coerce_text(parameter: Parameter, value: Any) -> str:
    # Native rendering turns a prompt like "1984" into a number.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError
    text = str(value)
    if len(text) > (parameter.maximum or math.inf):
        raise ValueError
    return text


def _coerce_choice(parameter: Parameter, value: Any) -> str:
    text = _coerce_text(parameter, value)
    word = text.strip().lower()
    if parameter.choices and word not in parameter.choices:
        raise ValueError
    # An unknown model's choices may be case-sensitive, such as "4K".
    return word if parameter.choices else text


def _coerce_ratio(parameter: Parameter, value: Any) -> str:
    text = _coerce_text(parameter, value).strip()
    if not re.fullmatch(r"[1-9]\d{0,3}:[1-9]\d{0,3}", text, re.ASCII):
        raise ValueError
    ratio = _ratio(text)
    if parameter.max_aspect_ratio and max(ratio, 1 / ratio) > _ratio(parameter.max_aspect_ratio):
        raise ValueError
    return text


def _ratio(text: str) -> Fraction:
    width, _, height = text.partition(":")
    return Fraction(int(width), int(height))


def _coerce_url(parameter: Parameter, value: Any) -> str:
    url = _coerce_text(parameter, value).strip()
    if not _is_url(url) or len(url) > (parameter.maximum or math.inf):
        raise ValueError
    return url


def _is_url(text: str) -> bool:
    return bool(re.fullmatch(r"https?://[^\s]+", text, re.IGNORECASE)) and bool(urlsplit(text).hostname)


def _coerce_image(parameter: Parameter, value: Any) -> str:
    if isinstance(value, ImageToken):
        return value
    if not isinstance(value, str):
        raise ValueError
    if URL in parameter.encodings and _is_url(value.strip()):
        return value.strip()
    # Base64 is often wrapped in lines, which not every decoder takes.
    image = "".join(value.split())
    if BASE64 not in parameter.encodings or not _is_base64(image):
        raise ValueError
    return image


def _is_base64(text: str) -> bool:
    data = re.sub(r"\Adata:[^,]{0,100};base64,", "", text[:200], flags=re.IGNORECASE) + text[200:]
    return len(data) >= _MIN_BASE64_LENGTH and re.fullmatch(r"[A-Za-z0-9+/]+={0,2}", data) is not None


def _coerce_images(parameter: Parameter, value: Any) -> list[str]:
    images = [value] if (listed := parse_list(value)) is None else listed
    if len(images) > (parameter.maximum or math.inf):
        raise ValueError
    return [_coerce_image(parameter, image) for image in images]


_COERCERS: dict[ParameterType, Callable[[Parameter, Any], Any]] = {
    "integer": _coerce_integer,
    "number": _coerce_number,
    "boolean": _coerce_boolean,
    "text": _coerce_text,
    "choice": _coerce_choice,
    "ratio": _coerce_ratio,
    "url": _coerce_url,
    "image": _coerce_image,
    "images": _coerce_images,
}


def size_problem(model: Model, fields: Mapping[str, Any]) -> str | None:
    """Return the message for a size over the model's pixel limit, with the largest valid one; None if it is valid."""
    if model.max_pixels is None:
        return None
    try:
        width, height = (parse_integer(fields.get(side)) for side in ("width", "height"))
    except (ValueError, TypeError, OverflowError):
        return None
    if min(width, height) <= 0 or width * height <= model.max_pixels:
        return None
    valid = largest_size(width, height, model.max_pixels, model.parameters["width"])
    return (
        f"width and height must make at most {format_megapixels(model.max_pixels)} megapixels, not {width} x {height}; "
        f"the largest of this shape is {valid[0]} x {valid[1]}"
    )


def format_megapixels(pixels: int) -> str:
    """Return a number of pixels in megapixels as the API's documentation counts them: 2048 x 2048 are four."""
    return f"{pixels / 1024**2:g}"


def largest_size(width: int, height: int, max_pixels: int, side: Parameter) -> tuple[int, int]:
    """Return the largest size of about this shape that has at most ``max_pixels``.

    The exact shape is kept where that costs at most a tenth of the pixels.

    :param side: What each of width and height takes.
    """
    if height > width:
        return largest_size(height, width, max_pixels, side)[::-1]
    step = side.multiple_of or 1
    minimum, maximum = math.ceil((side.minimum or 1) / step) * step, int(side.maximum or max_pixels)
    scale = math.sqrt(max_pixels / (width * height))
    short = max(minimum, math.floor(height * scale) // step * step)
    long = min(math.ceil(width * scale), max_pixels // short, maximum) // step * step
    divisor = math.gcd(width, height)
    unit = (width // divisor * step, height // divisor * step)
    factor = min(math.isqrt(max_pixels // (unit[0] * unit[1])), maximum // unit[0])
    exact = (unit[0] * factor, unit[1] * factor)
    return exact if exact[1] >= minimum and exact[0] * exact[1] >= 0.9 * long * short else (long, short)
