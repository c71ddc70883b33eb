"""Operator arguments as authors write them and templates render them, parsed into values.

Without native rendering, a template turns every value into text: a dict into its JSON or its Python notation, a number
into its digits, None into ``"None"``.
"""

from __future__ import annotations

import ast
import contextlib
import json
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from airflow_provider_flux.exceptions import FluxBadRequestError

_UNSET_TEXTS = ("", "none", "null")
_FLAGS = {**dict.fromkeys(("true", "yes", "on", "1"), True), **dict.fromkeys(("false", "no", "off", "0"), False)}
_BLANK_TEXTS = (*_UNSET_TEXTS, "undefined", "nan", "[]", "{}")


def is_unset(value: Any) -> bool:
    """Return whether ``value`` is None or empty text, or the text that a template renders from None."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _UNSET_TEXTS)


def is_blank(value: Any) -> bool:
    """Return whether ``value`` has no usable content: unset, an empty collection, undefined, or NaN."""
    if isinstance(value, str):
        return value.strip().lower() in _BLANK_TEXTS
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, (Mapping, Sequence)):
        return not value
    # Native rendering returns Jinja's Undefined; a process that has one has imported jinja2.
    undefined = getattr(sys.modules.get("jinja2"), "Undefined", ())
    return value is None or isinstance(value, undefined)


def parse_structure(text: str) -> Any:
    """Return the list or dict that ``text`` holds as JSON or in Python notation; otherwise ``text`` unchanged."""
    stripped = text.strip()
    if stripped.startswith(("{", "[", "(")):
        for parse in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                return parse(stripped)
    return text


def parse_mapping(value: Any) -> Mapping[str, Any] | None:
    """Return ``value`` as a mapping, also from rendered text; None if it is not one."""
    value = parse_structure(value) if isinstance(value, str) else value
    return value if isinstance(value, Mapping) else None


def parse_list(value: Any) -> list[Any] | None:
    """Return ``value`` as a list, also from rendered text; None if it is not a sequence.

    The results of mapped tasks are not a list but a lazy Sequence.
    """
    value = parse_structure(value) if isinstance(value, str) else value
    return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else None


def parse_parameters(value: Any, name: str = "parameters") -> Mapping[str, Any]:
    """Return additional request fields; an empty mapping if ``value`` is unset.

    :param name: What the error message calls them.
    :raises FluxBadRequestError: if ``value`` is not a dict.
    """
    parameters = {} if is_unset(value) else parse_mapping(value)
    if parameters is None:
        raise FluxBadRequestError(f"{name} must be a dict of request fields.")
    return parameters


def parse_seconds(name: str, value: Any, minimum: float = 1e-3) -> float:
    """Return a duration in seconds, given as a number or a timedelta.

    :param name: The argument, for the error message.
    :param minimum: Shortest valid duration, in seconds.
    :raises FluxBadRequestError: if ``value`` is not a valid duration.
    """
    value = value.total_seconds() if isinstance(value, timedelta) else value
    return _parse_number(name, value, minimum, f"a number of seconds, {minimum:g} or more")


def parse_credits(name: str, value: Any) -> float:
    """Return an amount of credits.

    :param name: The argument, for the error message.
    :raises FluxBadRequestError: if ``value`` is not a valid amount.
    """
    return _parse_number(name, value, 0, "a number of credits, 0 or more")


def parse_bytes(name: str, value: Any) -> int:
    """Return a size in bytes.

    :param name: The argument, for the error message.
    :raises FluxBadRequestError: if ``value`` is not a valid size.
    """
    return parse_count(name, value, 1, "a number of bytes")


def bytes_or_default(value: Any, default: int) -> int:
    """Return a size in bytes, or ``default`` if ``value`` is invalid: a paid image must be stored anyway."""
    try:
        return parse_bytes("max_bytes", value)
    except FluxBadRequestError:
        return default


def parse_count(name: str, value: Any, minimum: int = 0, description: str = "a whole number") -> int:
    """Return a whole number; ``"8"`` and ``8.0`` are 8.

    :param name: The argument, for the error message.
    :param minimum: Smallest valid number.
    :param description: What the error message calls a valid value.
    :raises FluxBadRequestError: if ``value`` is not a valid number.
    """
    expected = f"{description}, {minimum} or more"
    if (number := _parse_number(name, value, minimum, expected)) != int(number):
        raise _invalid(name, value, expected)
    return int(number)


def parse_flag(name: str, value: Any) -> bool:
    """Return a flag that is given as true or false, also as text.

    :raises FluxBadRequestError: if it is anything else.
    """
    word = str(value).strip().lower()
    if word not in _FLAGS:
        raise _invalid(name, value, "true or false")
    return _FLAGS[word]


def _parse_number(name: str, value: Any, minimum: float, expected: str) -> float:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        if minimum <= number < math.inf and not isinstance(value, bool):
            return number
    raise _invalid(name, value, expected)


def _invalid(name: str, value: Any, expected: str) -> FluxBadRequestError:
    return FluxBadRequestError(f"{name} is {value!r}; it must be {expected}.")
