"""A limit as its author writes it (``"5000/month"``), and the periods that it speaks of."""

from __future__ import annotations

import datetime
import math
import re
from dataclasses import dataclass
from typing import Literal

from airflow_provider_flux.client.catalogue.prices import USD_PER_CREDIT, format_cost

Unit = Literal["day", "week", "month"]

_LIMIT = re.compile(
    r"(?P<dollar>\$)?\s*(?P<amount>\d+(\.\d+)?)\s*(?P<unit>credits?|usd)?\s*(/|\bper\b)\s*(?P<period>day|week|month)",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Limit:
    """What may be spent in one period.

    :param credits: Credits.
    :param unit: The period, which begins at midnight UTC: of each day, each Monday, or the first of each month.
    """

    credits: float
    unit: Unit

    def __str__(self) -> str:
        return f"{format_cost(self.credits)} per {self.unit}"

    def period(self, at: float) -> str:
        """Return the name of the period in which a Unix time is: ``2026-11-26``, ``2026-W48`` or ``2026-11``."""
        moment = datetime.datetime.fromtimestamp(at, datetime.UTC)
        year, week, _ = moment.isocalendar()
        return {"day": f"{moment:%Y-%m-%d}", "week": f"{year:04d}-W{week:02d}", "month": f"{moment:%Y-%m}"}[self.unit]

    def end(self, at: float) -> datetime.datetime:
        """Return the end of the period in which a Unix time is."""
        midnight = datetime.datetime.fromtimestamp(at, datetime.UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        if self.unit == "day":
            return midnight + datetime.timedelta(days=1)
        if self.unit == "week":
            return midnight + datetime.timedelta(days=7 - midnight.weekday())
        return (midnight.replace(day=1) + datetime.timedelta(days=32)).replace(day=1)


def parse_limit(text: object) -> Limit:
    """Return the limit that an author wrote, in credits (``"5000/month"``) or US dollars (``"$50/month"``).

    :raises ValueError: naming what is invalid.
    """
    match = _LIMIT.fullmatch(text.strip()) if isinstance(text, str) else None
    if match is None or (match["dollar"] and (match["unit"] or "usd").lower() != "usd"):
        raise ValueError(
            f"{text!r} is no limit; it must be an amount of credits or US dollars per day, week or month, such as "
            f"'5000/month' or '$50/month'"
        )
    is_usd = match["dollar"] or (match["unit"] or "").lower() == "usd"
    credits = float(match["amount"]) / (USD_PER_CREDIT if is_usd else 1)
    if not math.isfinite(credits):
        raise ValueError(f"{text!r} is no limit; its amount is too large")
    units: dict[str, Unit] = {"day": "day", "week": "week", "month": "month"}
    return Limit(round(credits, 6), units[match["period"].lower()])
