"""What authors write and templates render, read as values: the one place that knows how.

A template without native rendering turns every value into text: a dict into its JSON or its Python notation, a number
into its digits, nothing into ``"None"``.
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

_UNSET = ("", "none", "null")
_NO_CONTENT = (*_UNSET, "undefined", "nan", "[]", "{}")


def is_unset(value: Any) -> bool:
    """Return whether ``value`` is unset, also where a template has turned that into text."""
    return value is None or (isinstance(value, str) and value.strip().lower() in _UNSET)


def is_blank(value: Any) -> bool:
    """Return whether ``value`` holds nothing that could be meant: unset, empty, undefined, or not a number."""
    if isinstance(value, str):
        return value.strip().lower() in _NO_CONTENT
    if isinstance(value, float):
        return math.isnan(value)
    if isinstance(value, (Mapping, Sequence)):
        return not value
    # Jinja's, of a template with native rendering; what has made it has loaded jinja2.
    undefined = getattr(sys.modules.get("jinja2"), "Undefined", ())
    return value is None or isinstance(value, undefined)


def parse_structure(text: str) -> Any:
    """Return the list or dict that ``text`` is as JSON or in Python's notation; else ``text`` itself."""
    stripped = text.strip()
    if stripped.startswith(("{", "[", "(")):
        for reader in (json.loads, ast.literal_eval):
            with contextlib.suppress(ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
                return reader(stripped)
    return text


def parse_mapping(value: Any) -> Mapping[str, Any] | None:
    """Return ``value`` as a mapping, also where a template has turned it into text; else None."""
    value = parse_structure(value) if isinstance(value, str) else value
    return value if isinstance(value, Mapping) else None


def parse_list(value: Any) -> list[Any] | None:
    """Return ``value`` as a list, also where a template has turned it into text; None if it is none.

    What mapped tasks returned is no list, but a Sequence that Airflow reads when it is asked.
    """
    value = parse_structure(value) if isinstance(value, str) else value
    return list(value) if isinstance(value, Sequence) and not isinstance(value, (str, bytes)) else None


def parse_parameters(value: Any, what: str = "parameters") -> Mapping[str, Any]:
    """Return a request's further fields; none if ``value`` is unset.

    :param what: How a message names them.
    :raises FluxBadRequestError: if they are not a dict.
    """
    parameters = {} if is_unset(value) else parse_mapping(value)
    if parameters is None:
        raise FluxBadRequestError(f"{what} must be a dict of request fields.")
    return parameters


def seconds(name: str, value: Any, least: float = 1e-3) -> float:
    """Return a duration that was given in seconds or as a timedelta.

    :param name: The argument, for the message.
    :param least: Shortest duration that is accepted.
    :raises FluxBadRequestError: if it is not one; before money is spent.
    """
    value = value.total_seconds() if isinstance(value, timedelta) else value
    return _number(name, value, least, f"a number of seconds, {least:g} or more")


def parse_credits(name: str, value: Any) -> float:
    """Return an amount of credits.

    :param name: The argument, for the message.
    :raises FluxBadRequestError: if it is not one; before money is spent.
    """
    return _number(name, value, 0, "a number of credits, 0 or more")


def parse_bytes(name: str, value: Any) -> int:
    """Return a size in bytes.

    :param name: The argument, for the message.
    :raises FluxBadRequestError: if it is not one; before money is spent.
    """
    return count(name, value, 1, "a number of bytes")


def bytes_or_default(value: Any, default: int) -> int:
    """Return a size in bytes, or ``default`` if it is not one: for an image that is paid for and must be stored."""
    try:
        return parse_bytes("max_bytes", value)
    except FluxBadRequestError:
        return default


def count(name: str, value: Any, least: int = 0, of: str = "a whole number") -> int:
    """Return a whole number; ``"8"`` and ``8.0`` are 8.

    :param name: The argument, for the message.
    :param least: Smallest number that is accepted.
    :param of: What is counted, for the message.
    :raises FluxBadRequestError: if it is not one; before money is spent.
    """
    meaning = f"{of}, {least} or more"
    if (number := _number(name, value, least, meaning)) != int(number):
        raise _refused(name, value, meaning)
    return int(number)


def _number(name: str, value: Any, least: float, meaning: str) -> float:
    with contextlib.suppress(TypeError, ValueError, OverflowError):
        number = float(value)
        if least <= number < math.inf and not isinstance(value, bool):
            return number
    raise _refused(name, value, meaning)


def _refused(name: str, value: Any, meaning: str) -> FluxBadRequestError:
    return FluxBadRequestError(f"{name} is {value!r}; it must be {meaning}.")
