"""The command ``costs``."""

from __future__ import annotations

import argparse
import datetime
from collections.abc import Sequence

from airflow_provider_flux.cli.running import notice, without_logs
from airflow_provider_flux.costs.formats import to_csv, to_table
from airflow_provider_flux.costs.records import CostRecord
from airflow_provider_flux.costs.report import Period, make_report
from airflow_provider_flux.exceptions import FluxError

_MANY_UNREADABLE = "receipts cannot be read, and the costs in them"
_SHOWN = 3
"""URIs that a message names."""


@without_logs
def run(arguments: argparse.Namespace) -> str:
    """Return the report."""
    period = Period(arguments.since, arguments.until)
    if period.is_empty:
        raise ValueError(f"--since {period.since} is after --until {period.until}.")
    if arguments.uris:
        records = _records_below(arguments.uris, arguments.aws_conn_id or None, period)
    else:
        records = _records_in_airflow()
    report = make_report(period.of(records), arguments.by)
    if not report.groups:
        days = "" if period == Period() else " in these days"
        notice(
            f"No images{days} {'in the receipts below these URIs' if arguments.uris else 'in the results of tasks'}."
        )
        return to_csv(report) if arguments.csv else ""
    return to_csv(report) if arguments.csv else to_table(report)


def _records_in_airflow() -> list[CostRecord]:
    from sqlalchemy.exc import SQLAlchemyError

    from airflow_provider_flux.gallery.costs import read_records
    from airflow_provider_flux.gallery.index import ImageFilter

    try:
        return read_records(ImageFilter())
    except SQLAlchemyError as error:
        reason = str(getattr(error, "orig", None) or error).splitlines()[0]
        raise FluxError(f"Airflow's database cannot be read ({reason}); a URI of receipts needs none.") from error


def _records_below(uris: Sequence[str], aws_conn_id: str | None, period: Period) -> list[CostRecord]:
    from airflow_provider_flux.costs.folders import read_receipts
    from airflow_provider_flux.costs.receipts import records_of

    since = None
    if period.since is not None:
        # A receipt that was written before names no later job.
        since = datetime.datetime.combine(period.since, datetime.time(), datetime.UTC)
    unreadable: list[str] = []
    records = records_of(read_receipts(uris, aws_conn_id, since, unreadable))
    if unreadable:
        what = "receipt cannot be read, and the costs in it" if len(unreadable) == 1 else _MANY_UNREADABLE
        more = ", ..." if len(unreadable) > _SHOWN else "."
        notice(f"{len(unreadable)} {what} are missing: {', '.join(unreadable[:_SHOWN])}{more}")
    undated = sum(record.day is None for record in records)
    if undated and period != Period():
        notice(f"{undated} {'job has' if undated == 1 else 'jobs have'} no date and are left out.")
    return records
