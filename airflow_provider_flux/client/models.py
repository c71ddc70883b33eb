"""What the FLUX models take: parameter types, and how a request body is made of an author's values.

Validates what it knows before money is spent; what it does not know passes through unchanged.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_flux.client.errors import FluxBadRequestError

IMAGE_INPUTS = re.compile(r"image_prompt|input_image(_\d+)?|image|images|control_image|preprocessed_image")

_NOTHING = ("", "none", "null")
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


def _integer(value: Any) -> int:
    number = _number(value)
    if number != int(number):
        raise ValueError
    return int(number)


def _number(value: Any) -> int | float:
    if isinstance(value, bool):
        raise ValueError
    if isinstance(value, int):
        return value
    try:
        return int(value) if isinstance(value, str) else _finite(float(value))
    except ValueError:
        return _finite(float(value))


def _finite(number: float) -> float:
    if not math.isfinite(number):
        raise ValueError
    return number


def _boolean(value: Any) -> bool:
    text = str(value).strip().lower()
    if text in _TRUE:
        return True
    if text in _FALSE:
        return False
    raise ValueError


def _text(value: Any) -> str:
    # Native rendering turns a prompt like "1984" into a number.
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise ValueError
    return str(value)


_INTEGER = (_integer, "a whole number")
_NUMBER = (_number, "a number")
_BOOLEAN = (_boolean, "true or false")
_TEXT = (_text, "text")

PARAMETERS: dict[str, tuple[Callable[[Any], Any], str]] = {
    "prompt": _TEXT,
    "image_prompt": _TEXT,
    "image_prompt_strength": _NUMBER,
    "width": _INTEGER,
    "height": _INTEGER,
    "aspect_ratio": _TEXT,
    "steps": _INTEGER,
    "prompt_upsampling": _BOOLEAN,
    "seed": _INTEGER,
    "guidance": _NUMBER,
    "safety_tolerance": _INTEGER,
    "interval": _NUMBER,
    "raw": _BOOLEAN,
    "top": _INTEGER,
    "bottom": _INTEGER,
    "left": _INTEGER,
    "right": _INTEGER,
    "canny_low_threshold": _INTEGER,
    "canny_high_threshold": _INTEGER,
    "finetune_id": _TEXT,
    "finetune_strength": _NUMBER,
    "output_format": _TEXT,
    "webhook_url": _TEXT,
    "webhook_secret": _TEXT,
}
"""The parameters that any FLUX model documents: how their values are read, and what they are."""


def output_format(model: str, parameters: Mapping[str, Any]) -> str:
    """Return the file format that ``model`` gives for ``parameters``: ``"jpeg"``, ``"png"`` or ``"webp"``."""
    asked = str(parameters.get("output_format") or "").strip().lower()
    return asked or ("png" if model.startswith("flux-kontext") else "jpeg")


def check_model(model: Any) -> str:
    """Return ``model`` if it can stand in the submit URL's path.

    :raises FluxBadRequestError: if it is empty or holds anything but letters, digits, ``.``, ``_``, ``-``.
    """
    if not isinstance(model, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model):
        raise FluxBadRequestError(f"{model!r} is not the name of a FLUX model; a name looks like 'flux-pro-1.1'.")
    return model


def prepare(model: Any, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON body to submit: unset and empty fields left out, text read as what the API takes.

    Templates render to text, so ``"1024"`` becomes ``1024``, and ``"None"`` counts as unset where the
    parameter is not itself text.

    :raises FluxBadRequestError: naming every value that cannot be used, before anything is sent.
    """
    check_model(model)
    body: dict[str, Any] = {}
    problems: list[str] = []
    for name, value in parameters.items():
        if value is None or (isinstance(value, (str, list, tuple, dict)) and not value):
            continue
        if name not in PARAMETERS:
            body[name] = value
            continue
        read, kind = PARAMETERS[name]
        if isinstance(value, str):
            if not value.strip() or (name != "prompt" and value.strip().lower() in _NOTHING):
                continue
            if read is not _text:
                value = value.strip()
        try:
            body[name] = read(value)
        except (ValueError, TypeError, OverflowError):
            shown = "" if name.endswith("secret") else f", not {str(value)[:100]!r}"
            problems.append(f"{name} must be {kind}{shown}")
    if "output_format" in body:
        body["output_format"] = body["output_format"].lower()
    wrong_prompt = any(problem.startswith("prompt ") for problem in problems)
    if "prompt" not in body and not wrong_prompt and not any(IMAGE_INPUTS.fullmatch(name) for name in body):
        problems.append("prompt is empty, and there is no input image either")
    if problems:
        raise FluxBadRequestError(f"Cannot ask {model} for an image: {'; '.join(problems)}.")
    try:
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise FluxBadRequestError(f"The parameters for {model} cannot be sent as JSON ({error}).") from None
    return body
