"""What authors write and templates render, read as numbers."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from airflow_provider_flux import arguments
from airflow_provider_flux.exceptions import FluxBadRequestError

READERS = (arguments.seconds, arguments.count, arguments.parse_credits, arguments.parse_bytes)


@pytest.mark.parametrize(
    ("read", "value", "number"),
    [
        (arguments.seconds, "90", 90),
        (arguments.seconds, timedelta(minutes=2), 120),
        (arguments.count, " 8 ", 8),
        (arguments.count, "8.0", 8),
        (arguments.count, Decimal(8), 8),
        (arguments.parse_credits, "2.5", 2.5),
        (arguments.parse_credits, 0, 0),
        (arguments.parse_bytes, "1e6", 1_000_000),
    ],
)
def test_text_is_read_as_its_number(read: Callable[..., Any], value: Any, number: float) -> None:
    assert read("cap", value) == number


@pytest.mark.parametrize("read", READERS)
@pytest.mark.parametrize("value", [None, "", "None", "much", True, "nan", float("inf"), -1, [3], {}])
def test_what_is_no_number_is_named(read: Callable[..., Any], value: Any) -> None:
    with pytest.raises(FluxBadRequestError, match=r"^cap is .*; it must be .* Nothing was billed"):
        read("cap", value)


@pytest.mark.parametrize("value", [1.5, "1.5"])
def test_a_count_is_not_cut_off(value: Any) -> None:
    with pytest.raises(FluxBadRequestError, match="whole number"):
        arguments.count("max_failures", value)


@given(some.integers(0, 2**53), some.sampled_from([str, float, int]))
def test_a_count_is_the_same_in_every_type(number: int, kind: Callable[[int], Any]) -> None:
    assert arguments.count("max_active", kind(number)) == number
