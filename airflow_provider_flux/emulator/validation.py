"""Is this request body one that the API accepts? If not, say why in BFL's (pydantic's) words.

JSON types are taken strictly: "1024" is no integer, true is no integer, 1024.0 is no integer.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_flux.emulator.inputs import UnusableImageError, check_mask, input_size
from airflow_provider_flux.emulator.models import Model, Parameter

Problem = dict[str, Any]

_TYPES: dict[str, tuple[tuple[type, ...], str, str]] = {
    "integer": ((int,), "int_type", "Input should be a valid integer"),
    "number": ((int, float), "float_type", "Input should be a valid number"),
    "boolean": ((bool,), "bool_type", "Input should be a valid boolean"),
    "images": ((list,), "list_type", "Input should be a valid list"),
}
_STRING = ((str,), "string_type", "Input should be a valid string")


class InvalidRequestError(Exception):
    """The body breaks the schema; `problems` has one entry per fault, as in BFL's 422 `detail`."""

    def __init__(self, problems: list[Problem]) -> None:
        super().__init__(problems)
        self.problems = problems


def problem(loc: tuple[str | int, ...], type_: str, msg: str, value: Any) -> Problem:
    """One entry of a 422 `detail` list."""
    return {"loc": list(loc), "msg": msg, "type": type_, "input": value}


def parse(raw: bytes, content_type: str) -> dict[str, Any]:
    """The JSON object in `raw`.

    :raises InvalidRequestError: it is no JSON, no object, not declared as JSON, or cannot be said again in
        JSON (NaN, Infinity, half a surrogate pair).
    """
    try:
        body = json.loads(raw)
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        entry = problem(("body", 0), "json_invalid", "JSON decode error", {})
        raise InvalidRequestError([{**entry, "ctx": {"error": str(error)[:200]}}]) from None
    if not isinstance(body, dict) or "json" not in content_type:
        msg = "Input should be a valid dictionary or object to extract fields from"
        raise InvalidRequestError([problem(("body",), "model_attributes_type", msg, body)])
    return body


def check(
    model: Model, body: dict[str, Any], required: tuple[str, ...] = (), base64_only: tuple[str, ...] = ()
) -> None:
    """Check `body` against the model's parameters.

    :param required: fields the dialect demands on top of the model's own.
    :param base64_only: input images that may not be URLs.
    :raises InvalidRequestError: with every problem found.
    :raises UnusableImageError: the schema is kept but an input image cannot be used.
    """
    problems = list(_problems(model, body, required))
    if problems:
        raise InvalidRequestError(problems)
    for name, rule in model.parameters.items():
        if rule.kind == "image" and body.get(name) is not None:
            if name in base64_only and body[name].startswith("http"):
                raise UnusableImageError(f"{name}: not a base64 encoded image")
            input_size(name, body[name])
        elif rule.kind == "images":
            for item in body.get(name) or ():
                input_size(name, item)
    if "mask" in model.parameters:
        check_mask(body)


def _problems(model: Model, body: dict[str, Any], required: tuple[str, ...]) -> Iterator[Problem]:
    for name in dict.fromkeys((*model.required, *required)):
        if name not in body:
            yield problem(("body", name), "missing", "Field required", body)
    if model.either and all(body.get(name) is None for name in model.either):
        msg = f"Value error, one of {' and '.join(model.either)} is required"
        yield problem(("body",), "value_error", msg, body)
    for name, value in body.items():
        rule = model.parameters.get(name)
        if name in model.refuses:
            msg = "Value error, this model does not support width/height"
            yield problem(("body", name), "value_error", msg, value)
        elif rule is not None:
            required_here = name in model.required or name in required
            if value is not None or not rule.nullable or required_here:
                yield from _value(("body", name), rule, value)
        elif model.strict:
            yield problem(("body", name), "extra_forbidden", "Extra inputs are not permitted", value)
    yield from _area(model, body)


def _area(model: Model, body: dict[str, Any]) -> Iterator[Problem]:
    if model.max_megapixels is None:
        return
    # A side that is absent is the model's choice, down to the least; one that is wrong has been reported already.
    width, height = (body.get(name) or model.parameters[name].low or 1 for name in ("width", "height"))
    sides_known = all(isinstance(side, int) for side in (width, height))
    if sides_known and width * height > model.max_megapixels * 1024 * 1024:
        msg = f"Value error, width x height must not exceed {model.max_megapixels:g} megapixels"
        yield problem(("body", "width"), "value_error", msg, body.get("width"))


def _value(loc: tuple[str | int, ...], rule: Parameter, value: Any) -> Iterator[Problem]:
    types, kind, msg = _TYPES.get(rule.kind, _STRING)
    # type(), not isinstance(): a bool is an int in Python, but not in JSON.
    if type(value) not in types:
        yield problem(loc, kind, msg, value)
    elif rule.kind in ("integer", "number"):
        yield from _range(loc, rule, value)
    elif rule.kind == "choice" and value not in rule.choices:
        words = ", ".join(repr(word) for word in rule.choices[:-1])
        yield problem(loc, "enum", f"Input should be {words} or {rule.choices[-1]!r}", value)
    elif rule.kind == "ratio":
        yield from _ratio(loc, rule, value)
    elif rule.kind == "url":
        yield from _url(loc, rule, value)
    elif rule.kind == "images":
        if rule.high is not None and len(value) > rule.high:
            msg = f"List should have at most {rule.high:g} items after validation, not {len(value)}"
            yield problem(loc, "too_long", msg, len(value))
        for index, item in enumerate(value):
            yield from _value((*loc, index), Parameter("image"), item)


def _range(loc: tuple[str | int, ...], rule: Parameter, value: float) -> Iterator[Problem]:
    if rule.low is not None and value < rule.low:
        msg = f"Input should be greater than or equal to {rule.low:g}"
        yield problem(loc, "greater_than_equal", msg, value)
    elif rule.high is not None and value > rule.high:
        yield problem(loc, "less_than_equal", f"Input should be less than or equal to {rule.high:g}", value)
    elif rule.step is not None and value % rule.step:
        yield problem(loc, "multiple_of", f"Input should be a multiple of {rule.step}", value)


def _ratio(loc: tuple[str | int, ...], rule: Parameter, value: str) -> Iterator[Problem]:
    match = re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", value, re.ASCII)
    if not match:
        yield problem(loc, "value_error", "Value error, aspect ratio must look like '16:9'", value)
        return
    width, height = int(match[1]), int(match[2])
    if max(width / height, height / width) > rule.ratio + 1e-9:
        yield problem(loc, "value_error", "Value error, aspect ratio is too far from square", value)


def _url(loc: tuple[str | int, ...], rule: Parameter, value: str) -> Iterator[Problem]:
    if rule.low is not None and len(value) < rule.low:
        yield problem(loc, "string_too_short", f"String should have at least {rule.low:g} character", value)
    elif rule.high is not None and len(value) > rule.high:
        yield problem(loc, "string_too_long", f"String should have at most {rule.high:g} characters", value)
    elif not _is_web_url(value):
        yield problem(loc, "url_parsing", "Input should be a valid URL", value)


def _is_web_url(value: str) -> bool:
    try:
        parts = urlsplit(value)
        return parts.scheme in ("http", "https") and bool(parts.hostname)
    except ValueError:
        return False
