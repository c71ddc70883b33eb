"""From receipts to cost records: each job once, however many copies of its image have a receipt."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator

from airflow_provider_flux.client.catalogue.prices import estimate
from airflow_provider_flux.client.jobs import Job, unix_time
from airflow_provider_flux.costs.records import CostKind, CostRecord, exact_credits, utc_day
from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.receipts.receipt import PAID_STATES, Receipt

_CERTAINTY: dict[CostKind, int] = {"paid": 0, "lost": 1, "withheld": 2, "reused": 3}
"""Of two records of one job, the one that knows more comes first: an image that exists somewhere is not lost."""


def records_of(receipts: Iterable[Receipt]) -> list[CostRecord]:
    """Return a record of each job that the receipts name."""
    receipts = list(receipts)
    records: dict[str, CostRecord] = {}
    # A receipt that knows no more than the job names the task that copied the image, which paid nothing.
    for receipt in sorted(receipts, key=_knows_only_the_job):
        for record in _records_of(receipt):
            earlier = records.get(record.key)
            records[record.key] = record if earlier is None else _merge(earlier, record)
    return list(records.values())


def _knows_only_the_job(receipt: Receipt) -> bool:
    return receipt.job is not None and receipt.fingerprint == f"job {receipt.job.id}"


def _records_of(receipt: Receipt) -> Iterator[CostRecord]:
    for replaced in receipt.replaced:
        yield _record("paid", receipt, *replaced)
    for unused in receipt.duplicates:
        yield _record("withheld" if unused.job.id in receipt.moderated else "lost", receipt, *unused)
    job = receipt.job
    if job is not None and receipt.state in (*PAID_STATES, "expired"):
        settled = None if receipt.image is None else receipt.image.cost
        job = job if settled is None else dataclasses.replace(job, cost=settled)
        yield _record("lost" if receipt.state == "expired" else "paid", receipt, job, receipt.run)
    is_orphan = receipt.state == "intent" and not receipt.is_being_submitted
    # Copies of a receipt share its later job, or the time of its submit.
    submit = receipt.times.get("intent") if job is None else job.id
    for number in range(receipt.orphans + is_orphan):
        key = f"orphan {number} of {receipt.fingerprint} {receipt.run.to_dict()} {submit}"
        yield _record("lost", receipt, Job(key, receipt.model, cost=_orphan_cost(receipt)), receipt.run)


def _record(kind: CostKind, receipt: Receipt, job: Job, run: TaskIdentity) -> CostRecord:
    times = (job.submitted_at, *(unix_time(receipt.times.get(state)) for state in ("submitted", "intent")))
    submitted_at = next((time for time in times if time is not None), None)
    return CostRecord(
        kind,
        job.id,
        utc_day(submitted_at),
        run.dag_id,
        run.run_id,
        run.task_id,
        job.model or receipt.model,
        exact_credits(job.cost),
    )


def _orphan_cost(receipt: Receipt) -> float | None:
    """Return what a submit without a response costs: as much as the later job of the same recipe, or its price."""
    if receipt.job is not None and receipt.job.cost is not None:
        return receipt.job.cost
    estimated = estimate(str(receipt.model), receipt.parameters or {})
    return None if estimated is None else estimated.credits


def _merge(one: CostRecord, other: CostRecord) -> CostRecord:
    """Return what two records of one job say together; ``one`` names the payer, if it can."""
    payer, further = (one, other) if one.dag_id is not None else (other, one)
    return dataclasses.replace(
        payer,
        kind=min(one.kind, other.kind, key=_CERTAINTY.__getitem__),
        day=min(filter(None, (one.day, other.day)), default=None),
        model=payer.model or further.model,
        credits=further.credits if payer.credits is None else payer.credits,
    )
