"""Sums of costs without a store or a database: records of receipts, grouping, the forms in which they are written."""

from __future__ import annotations

import csv
import datetime
import io
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.cli.definition import DIMENSIONS as OPTION
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.costs.formats import to_csv, to_table
from airflow_provider_flux.costs.receipts import records_of
from airflow_provider_flux.costs.records import CostRecord
from airflow_provider_flux.costs.report import DIMENSIONS, Totals, make_report
from airflow_provider_flux.gallery.cost_chart import chart_of
from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.receipts.receipt import (
    MAX_REPLACED,
    Receipt,
    ReceiptState,
    UnusedJob,
    new_claim,
    read_receipt,
)

RUN, OTHER = TaskIdentity("dag", "generate", "run-1"), TaskIdentity("dag", "generate", "run-2")
JOB = Job("job", "flux-dev", cost=2.5, submitted_at=1.8e9)
STORED = Receipt("submitted", "f", "flux-dev", run=RUN, job=JOB)

names = st.sampled_from(["a", "b", None])
records = st.lists(
    st.builds(
        CostRecord,
        kind=st.sampled_from(["paid", "reused", "lost", "withheld"]),
        key=st.text(),
        day=st.none() | st.dates(datetime.date(2026, 10, 30), datetime.date(2026, 12, 2)),
        dag_id=names,
        run_id=names,
        task_id=names,
        model=names,
        credits=st.none() | st.decimals(0, 1000, places=3),
    )
)


@given(records, st.permutations(sorted(DIMENSIONS)), st.integers(0, len(DIMENSIONS)))
def test_totals_do_not_depend_on_the_grouping(some: list[CostRecord], by: list[str], number: int) -> None:
    report, total = make_report(some, by[:number]), Totals()
    for totals in report.groups.values():
        total.merge(totals)
    assert total == report.total == make_report(some[::-1], []).total
    assert total.images + total.lost + total.withheld + total.reused == len(some)
    # The table and the CSV have all groups, and no other lines.
    assert len(to_csv(report).splitlines()) == 1 + len(report.groups)
    assert len(to_table(report).splitlines()) == 2 + len(report.groups)


def test_the_option_names_what_reports_can_be_grouped_by() -> None:
    assert set(OPTION) == DIMENSIONS.keys()


def kinds(*receipts: Receipt) -> dict[str, tuple[str, Decimal | None]]:
    return {record.key.split(" ")[0]: (record.kind, record.credits) for record in records_of(receipts)}


def test_duplicates_are_lost_and_moderated_jobs_are_withheld() -> None:
    unused = [UnusedJob(Job(name, "flux-dev", cost=4), OTHER) for name in ("double", "moderated")]
    receipt = replace(STORED, duplicates=unused, moderated=["moderated"], orphans=1)
    assert kinds(receipt) == {
        "job": ("paid", Decimal("2.5")),
        "double": ("lost", Decimal(4)),
        "moderated": ("withheld", Decimal(4)),
        "orphan": ("lost", Decimal("2.5")),
    }
    assert {record.run_id for record in records_of([receipt]) if record.key in ("double", "moderated")} == {"run-2"}


@pytest.mark.parametrize("state", ["failed", "intent"])
def test_failed_jobs_and_submits_in_progress_cost_nothing(state: ReceiptState) -> None:
    claim = new_claim(60) if state == "intent" else None
    assert kinds(replace(STORED, state=state, claim=claim, job=None if claim else JOB)) == {}


def test_copies_count_once_for_the_task_that_pays_in_any_order() -> None:
    copy = Receipt("submitted", "job job", run=TaskIdentity("copies", "upload", "run-9"), job=Job("job"))
    lost = replace(copy, state="expired")
    for receipts in ([copy, STORED, lost], [lost, STORED, copy]):
        (record,) = records_of(receipts)
        assert (record.kind, record.dag_id, record.credits) == ("paid", "dag", Decimal("2.5"))


def test_an_orphan_costs_as_much_as_its_recipe() -> None:
    orphan = replace(STORED, state="intent", job=None, parameters={"width": 256})
    assert kinds(orphan)["orphan"] == ("lost", Decimal("2.5"))
    assert kinds(replace(orphan, model="a-new-model"))["orphan"] == ("lost", None)


def test_a_replaced_image_is_kept_and_the_oldest_are_dropped() -> None:
    receipt = STORED
    for number in range(MAX_REPLACED + 5):
        receipt = Receipt("submitted", "f", job=Job(str(number), cost=1), run=RUN, replaced=receipt.jobs_to_keep())
    again = read_receipt(receipt.to_json(), "here")
    assert again == receipt
    assert len(receipt.to_json()) < 500_000
    assert [again.replaced[0].job.id, again.replaced[-1].job.id] == ["4", str(MAX_REPLACED + 3)]


@pytest.mark.parametrize("name", ["=1+1", "+cmd", "-2", "@sum", "\t=1", "\r=1", "\n=1"])
def test_csv_has_no_formulas(name: str) -> None:
    (record,) = records_of([STORED])
    text = to_csv(make_report([replace(record, dag_id=name)], ["dag"]))
    ((cell, *_),) = list(csv.reader(io.StringIO(text, newline="")))[1:]
    assert cell == (f"'{name}" if name.isprintable() else "?=1")


def test_a_name_cannot_add_lines_to_the_table() -> None:
    (record,) = records_of([STORED])
    table = to_table(make_report([replace(record, dag_id="a\nb\x1b[31m")], ["dag"]))
    assert table.splitlines()[1].split()[0] == "a?b?[31m"


@pytest.mark.parametrize(
    ("first", "last", "bars", "unit"),
    [
        ("2026-11-01", "2026-11-30", 30, "day"),
        ("2026-11-01", "2026-11-01", 30, "day"),
        ("2026-10-01", "2026-11-30", 61, "day"),
        ("2025-11-30", "2026-11-01", 13, "month"),
    ],
)
def test_the_chart_has_a_bar_for_each_day_or_month(first: str, last: str, bars: int, unit: str) -> None:
    sums = Totals(images=1, credits=Decimal(4), lost=1, lost_credits=Decimal(1))
    chart = chart_of({first: sums, last: sums, "unknown": sums})
    assert chart is not None
    assert (len(chart.bars), chart.unit) == (bars, unit)
    assert (chart.bars[-1].used, chart.bars[-1].lost) == (75, 25)


def test_there_is_no_chart_without_days() -> None:
    assert chart_of({}) is None
    chart = chart_of({"2026-11-01": Totals(reused=1)})
    assert chart is not None
    assert chart.bars[0].used == 0
