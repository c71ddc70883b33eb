"""Limits as authors write them, and the periods that they speak of."""

from __future__ import annotations

import datetime

import pytest

from airflow_provider_flux.spending.limits import Limit, parse_limit


@pytest.mark.parametrize(
    ("text", "credits", "unit"),
    [
        ("5000/month", 5000, "month"),
        (" 12.5 credits / Day ", 12.5, "day"),
        ("1 credit per week", 1, "week"),
        ("$50/month", 5000, "month"),
        ("0.29 USD/day", 29, "day"),
        ("0/day", 0, "day"),
    ],
)
def test_limit_is_read(text: str, credits: float, unit: str) -> None:
    assert parse_limit(text) == Limit(credits, unit)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text", ["", "5", "5/", "/day", "-1/day", "1e9/day", "inf/day", "9" * 400 + "/day", "€5/day", None]
)
def test_other_text_is_no_limit(text: str | None) -> None:
    with pytest.raises(ValueError, match="is no limit"):
        parse_limit(text)


@pytest.mark.parametrize(
    ("now", "day", "week", "month"),
    [
        (
            "2026-11-26T23:59:59.999",
            ("2026-11-26", "2026-11-27"),
            ("2026-W48", "2026-11-30"),
            ("2026-11", "2026-12-01"),
        ),
        ("2026-12-31T00:00", ("2026-12-31", "2027-01-01"), ("2026-W53", "2027-01-04"), ("2026-12", "2027-01-01")),
        ("2027-01-03T12:00", ("2027-01-03", "2027-01-04"), ("2026-W53", "2027-01-04"), ("2027-01", "2027-02-01")),
        ("2028-02-29T12:00", ("2028-02-29", "2028-03-01"), ("2028-W09", "2028-03-06"), ("2028-02", "2028-03-01")),
    ],
)
def test_periods_in_utc(now: str, day: tuple[str, str], week: tuple[str, str], month: tuple[str, str]) -> None:
    at = datetime.datetime.fromisoformat(now).replace(tzinfo=datetime.UTC).timestamp()
    for limit, (name, end) in ((Limit(1, "day"), day), (Limit(1, "week"), week), (Limit(1, "month"), month)):
        assert limit.period(at) == name
        assert limit.end(at).isoformat() == f"{end}T00:00:00+00:00"
        assert limit.period(limit.end(at).timestamp()) != name
