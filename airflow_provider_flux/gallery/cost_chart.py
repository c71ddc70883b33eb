"""The bars of the Costs page: one for each day, or for each month of a long time."""

from __future__ import annotations

import datetime
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from decimal import Decimal

from airflow_provider_flux.costs.formats import dollars, plain_number
from airflow_provider_flux.costs.records import usd_of
from airflow_provider_flux.costs.report import Totals

HEIGHT = 100
"""Height of the drawing, in units of its own."""
_STEP, _BAR = 10, 8
_FEWEST_DAYS, _MOST_DAYS = 30, 92


@dataclass(frozen=True, slots=True)
class Bar:
    """One day or month; lengths are in units of the drawing.

    :param used: Height of the part for images that exist; ``lost`` of the part above it.
    """

    name: str
    title: str
    x: int
    used: float
    lost: float


@dataclass(frozen=True, slots=True)
class Chart:
    """A bar chart of credits.

    :param unit: ``"day"`` or ``"month"``.
    :param top: Credits of the highest bar.
    :param width: Width of the drawing.
    """

    unit: str
    bars: list[Bar]
    top: str
    width: int
    height: int = HEIGHT
    bar_width: int = _BAR


def chart_of(days: Mapping[str, Totals]) -> Chart | None:
    """Return the chart of the sums of some days; None if there are none with a date.

    :param days: Day (ISO 8601) -> sums.
    """
    known = {day: totals for name, totals in days.items() if (day := _date(name)) is not None}
    if not known:
        return None
    first, last = min(known), max(known)
    unit = "day" if (last - first).days < _MOST_DAYS else "month"
    if unit == "day":
        # A day alone would be one wide block.
        first = min(first, last - datetime.timedelta(_FEWEST_DAYS - 1))
    sums = {name: Totals() for name in _names(first, last, unit)}
    for day, totals in known.items():
        sums[_name(day, unit)].merge(totals)
    top = max((totals.credits for totals in sums.values()), default=Decimal(0))
    scale = HEIGHT / float(top) if top else 0.0
    bars = [_bar(name, totals, number * _STEP, scale) for number, (name, totals) in enumerate(sums.items())]
    return Chart(unit, bars, plain_number(top), len(bars) * _STEP)


def _bar(name: str, totals: Totals, x: int, scale: float) -> Bar:
    lost = f", of which {plain_number(totals.lost_credits)} lost" if totals.lost_credits else ""
    title = f"{name}: {plain_number(totals.credits)} credits (${dollars(usd_of(totals.credits))}){lost}"
    used = totals.credits - totals.lost_credits
    return Bar(name, title, x, round(float(used) * scale, 2), round(float(totals.lost_credits) * scale, 2))


def _date(text: str) -> datetime.date | None:
    try:
        return datetime.date.fromisoformat(text)
    except ValueError:
        return None


def _name(day: datetime.date, unit: str) -> str:
    return day.isoformat() if unit == "day" else f"{day:%Y-%m}"


def _names(first: datetime.date, last: datetime.date, unit: str) -> Iterator[str]:
    """Yield all days or months of a range, also those without images."""
    if unit == "day":
        for number in range((last - first).days + 1):
            yield (first + datetime.timedelta(number)).isoformat()
        return
    for month in range(first.year * 12 + first.month - 1, last.year * 12 + last.month):
        yield f"{month // 12:04}-{month % 12 + 1:02}"
