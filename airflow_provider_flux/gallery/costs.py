"""What the images in Airflow's database cost: the sums of the Costs page, and the records of ``airflow flux costs``."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from decimal import Decimal

from airflow_provider_flux.costs.records import CostKind, CostRecord, exact_credits, utc_day
from airflow_provider_flux.costs.report import UNKNOWN, Report, Totals
from airflow_provider_flux.gallery import index
from airflow_provider_flux.gallery.index import CostRow, ImageFilter, IndexedImage

_IMAGES_AT_ONCE = 5000
_ENDED = ("failed", "moderated")


def read_report(dag_ids: Collection[str], which: ImageFilter, by: Sequence[str]) -> Report:
    """Return the sums over the images of these DAGs.

    :param dag_ids: The DAGs whose XComs the user may read.
    :param by: ``"day"``, ``"dag"``, ``"model"``, in any combination.
    """

    def groups(state: str | None) -> dict[tuple[str, ...], CostRow]:
        rows = index.aggregate(dag_ids, replace(which, state=state), by)
        return {tuple(row.key[name] or UNKNOWN for name in by): row for row in rows}

    moderated, unsubmitted = groups("moderated"), groups("not submitted")
    report = Report(tuple(by))
    for group, row in groups(None).items():
        totals = _totals(row.totals, moderated.get(group), unsubmitted.get(group))
        if totals != Totals():
            report.groups[group] = totals
            report.total.merge(totals)
    return report


def _totals(every: index.Totals, moderated: CostRow | None, unsubmitted: CostRow | None) -> Totals:
    withheld = index.Totals() if moderated is None else moderated.totals
    without_image = every.failed + every.moderated + (0 if unsubmitted is None else unsubmitted.totals.images)
    withheld_credits = _exact(withheld.lost_cost)
    return Totals(
        images=max(0, every.images - without_image - every.reused),
        credits=_exact(every.cost) - withheld_credits,
        reused=every.reused,
        lost=every.lost - withheld.lost,
        lost_credits=_exact(every.lost_cost) - withheld_credits,
        withheld=withheld.lost,
        withheld_credits=withheld_credits,
        unpriced=every.unknown_costs,
    )


def _exact(sum_of_floats: float) -> Decimal:
    return Decimal(str(round(sum_of_floats, 6)))


def read_records(which: ImageFilter) -> list[CostRecord]:
    """Return a record of each image of all DAGs, after the index has read every run."""
    dag_ids = index.indexed_dag_ids()
    while not index.search(dag_ids, which, 1).is_complete:
        time.sleep(0.1)
        dag_ids = index.indexed_dag_ids()
    return [record for image in _images(dag_ids, which) if (record := _record(image)) is not None]


def _images(dag_ids: Collection[str], which: ImageFilter) -> Iterator[IndexedImage]:
    offset = 0
    while found := index.search(dag_ids, which, _IMAGES_AT_ONCE, offset).images:
        yield from found
        offset += len(found)


def _record(found: IndexedImage) -> CostRecord | None:
    """Return what an image cost; None if it cost nothing, because no job was billed."""
    image = found.image
    credits = image.numeric("cost")
    kind: CostKind = "paid"
    if image.fields.get("reused") and not credits:
        kind = "reused"
    elif image.state in _ENDED:
        kind = "withheld" if image.state == "moderated" else "lost"
    if (image.state in _ENDED and not credits) or image.state == "not submitted":
        return None
    return CostRecord(
        kind,
        f"{found.dag_id} {found.run_id} {image.task_id} {image.map_index} {image.number}",
        utc_day(image.created_at.timestamp()),
        found.dag_id,
        found.run_id,
        image.task_id,
        image.model,
        exact_credits(credits),
    )
