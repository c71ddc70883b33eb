"""Operator arguments as authors write them and templates render them, parsed as numbers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux import arguments
from airflow_provider_flux.exceptions import FluxBadRequestError

PARSERS = (arguments.parse_seconds, arguments.parse_count, arguments.parse_credits, arguments.parse_bytes)


@pytest.mark.parametrize(
    ("parse", "value", "number"),
    [
        (arguments.parse_seconds, "90", 90),
        (arguments.parse_seconds, timedelta(minutes=2), 120),
        (arguments.parse_count, " 8 ", 8),
        (arguments.parse_count, "8.0", 8),
        (arguments.parse_count, Decimal(8), 8),
        (arguments.parse_credits, "2.5", 2.5),
        (arguments.parse_credits, 0, 0),
        (arguments.parse_bytes, "1e6", 1_000_000),
    ],
)
def test_text_is_parsed_as_its_number(parse: Callable[..., Any], value: Any, number: float) -> None:
    assert parse("cap", value) == number


@pytest.mark.parametrize("parse", PARSERS)
@pytest.mark.parametrize("value", [None, "", "None", "much", True, "nan", float("inf"), -1, [3], {}])
def test_invalid_number_is_named_with_its_argument(parse: Callable[..., Any], value: Any) -> None:
    with pytest.raises(FluxBadRequestError, match=r"^cap is .*; it must be .* Nothing was billed"):
        parse("cap", value)


@pytest.mark.parametrize("value", [1.5, "1.5"])
def test_fractional_count_is_not_truncated(value: Any) -> None:
    with pytest.raises(FluxBadRequestError, match="whole number"):
        arguments.parse_count("max_failures", value)


@given(st.integers(0, 2**53), st.sampled_from([str, float, int]))
def test_count_is_the_same_in_every_type(number: int, type_: Callable[[int], Any]) -> None:
    assert arguments.parse_count("max_active", type_(number)) == number


@pytest.mark.parametrize(("value", "flag"), [(True, True), ("True", True), (" no ", False), ("0", False), (1, True)])
def test_flag_is_read_as_text_too(value: Any, flag: bool) -> None:
    assert arguments.parse_flag("plan_only", value) is flag


@pytest.mark.parametrize("value", [None, "", "None", "maybe", 2, []])
def test_anything_else_is_no_flag(value: Any) -> None:
    with pytest.raises(FluxBadRequestError, match=r"plan_only is .*; it must be true or false"):
        arguments.parse_flag("plan_only", value)
