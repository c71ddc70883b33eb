"""One job that was billed, or may be, or one image that was reused: what every report sums up."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from decimal import Decimal
from typing import Literal

from airflow_provider_flux.client.catalogue.prices import USD_PER_CREDIT

CostKind = Literal["paid", "reused", "lost", "withheld"]
_MOST_CREDITS = 1e9
"""Credits above which a job's cost is not plausible."""


@dataclass(frozen=True, slots=True)
class CostRecord:
    """What one job cost, or that one image was reused.

    :param kind: ``paid`` (billed, with an image), ``reused`` (an image that another run paid for), ``lost`` (billed
        without an image: expired, a duplicate, or an orphan, of which it is likely), ``withheld`` (by output
        moderation: Black Forest Labs does not say whether it is billed).
    :param key: Equal in all records of the same job.
    :param day: Day of the submit in UTC; None if unknown.
    :param dag_id: The DAG that pays; None if unknown. So are the three fields below.
    :param credits: Credits; None if unknown.
    """

    kind: CostKind
    key: str
    day: datetime.date | None
    dag_id: str | None
    run_id: str | None
    task_id: str | None
    model: str | None
    credits: Decimal | None


def exact_credits(value: float | None) -> Decimal | None:
    """Return an amount that sums up exactly; None if it is unknown or not plausible."""
    if value is None or not 0 <= value <= _MOST_CREDITS:
        return None
    return Decimal(str(value))


def usd_of(credits: Decimal) -> Decimal:
    """Return an amount of credits in US dollars."""
    return credits * Decimal(str(USD_PER_CREDIT))


def utc_day(unix: float | None) -> datetime.date | None:
    """Return the day of a Unix time in UTC; None if it is unknown."""
    try:
        return None if unix is None else datetime.datetime.fromtimestamp(unix, datetime.UTC).date()
    except (ValueError, OverflowError, OSError):
        return None
