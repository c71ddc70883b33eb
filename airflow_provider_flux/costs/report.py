"""A report: cost records, filtered and grouped, with totals."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from airflow_provider_flux.costs.records import CostRecord, usd_of

UNKNOWN = "unknown"
DIMENSIONS: dict[str, Callable[[CostRecord], str]] = {
    "day": lambda record: UNKNOWN if record.day is None else record.day.isoformat(),
    "month": lambda record: UNKNOWN if record.day is None else f"{record.day:%Y-%m}",
    "dag": lambda record: record.dag_id or UNKNOWN,
    "run": lambda record: record.run_id or UNKNOWN,
    "task": lambda record: record.task_id or UNKNOWN,
    "model": lambda record: record.model or UNKNOWN,
}
"""What a report can be grouped by."""


@dataclass(slots=True)
class Totals:
    """The sums over some records.

    :param images: Images that were paid for.
    :param credits: Credits that were billed, those of lost images included.
    :param reused: Images that were reused instead of paid for.
    :param lost: Jobs that were billed without an image.
    :param lost_credits: Their part of ``credits``.
    :param withheld: Jobs whose image output moderation withheld.
    :param withheld_credits: Their credits, which may be billed and are not in ``credits``.
    :param unpriced: Jobs of unknown cost, which no sum contains.
    """

    images: int = 0
    credits: Decimal = Decimal(0)
    reused: int = 0
    lost: int = 0
    lost_credits: Decimal = Decimal(0)
    withheld: int = 0
    withheld_credits: Decimal = Decimal(0)
    unpriced: int = 0

    @property
    def usd(self) -> Decimal:
        """``credits`` in US dollars."""
        return usd_of(self.credits)

    def merge(self, other: Totals) -> None:
        """Add other sums."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))

    def add(self, record: CostRecord) -> None:
        """Add one record."""
        if record.kind == "reused":
            self.reused += 1
            return
        credits = record.credits or Decimal(0)
        self.unpriced += record.credits is None
        if record.kind == "withheld":
            self.withheld += 1
            self.withheld_credits += credits
            return
        self.credits += credits
        if record.kind == "lost":
            self.lost += 1
            self.lost_credits += credits
        else:
            self.images += 1


@dataclass(frozen=True, slots=True)
class Report:
    """Totals by group.

    :param by: The dimensions.
    :param groups: The values of the dimensions -> totals, in alphabetical order.
    :param total: The totals of all groups.
    """

    by: tuple[str, ...]
    groups: dict[tuple[str, ...], Totals] = field(default_factory=dict)
    total: Totals = field(default_factory=Totals)

    def grouped(self, name: str) -> dict[str, Totals]:
        """Return the totals by one of the dimensions, in alphabetical order of its values."""
        position, groups = self.by.index(name), dict[str, Totals]()
        for group, totals in self.groups.items():
            groups.setdefault(group[position], Totals()).merge(totals)
        return dict(sorted(groups.items()))


@dataclass(frozen=True, slots=True)
class Period:
    """A range of days in UTC.

    :param since: First day; None: the beginning.
    :param until: Last day; None: today.
    """

    since: datetime.date | None = None
    until: datetime.date | None = None

    @property
    def is_empty(self) -> bool:
        """Whether the range ends before it begins."""
        return self.since is not None and self.until is not None and self.until < self.since

    def contains(self, day: datetime.date | None) -> bool:
        """Return whether the day is in the range; one that is unknown is only in the range without limits."""
        if day is None:
            return self.since is None and self.until is None
        return (self.since is None or self.since <= day) and (self.until is None or day <= self.until)

    def of(self, records: Iterable[CostRecord]) -> Iterator[CostRecord]:
        """Yield the records of these days."""
        return (record for record in records if self.contains(record.day))


def make_report(records: Iterable[CostRecord], by: Sequence[str]) -> Report:
    """Return the totals of the records, grouped.

    :param by: Names in :data:`DIMENSIONS`; none: only the totals.
    """
    report = Report(tuple(by))
    groups: dict[tuple[str, ...], Totals] = {}
    for record in records:
        group = tuple(DIMENSIONS[name](record) for name in by)
        groups.setdefault(group, Totals()).add(record)
        report.total.add(record)
    report.groups.update(sorted(groups.items()))
    return report
