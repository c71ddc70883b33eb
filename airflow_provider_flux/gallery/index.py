"""The index of images over all runs: what the Browse page and the Costs page show, without reading each run.

The data are derived from Airflow's database and the stores (:mod:`indexing`) and kept in one SQLite file
(:mod:`index_file`). Every function blocks for a moment, so call them in a thread.
"""

from __future__ import annotations

import datetime
import sqlite3
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.client.catalogue.prices import to_usd
from airflow_provider_flux.gallery import index_file, indexing
from airflow_provider_flux.gallery.indexing import Progress
from airflow_provider_flux.gallery.results import GalleryImage

__all__ = [
    "CostRow",
    "ImageFilter",
    "ImagePage",
    "IndexedImage",
    "Progress",
    "Totals",
    "aggregate",
    "indexed_dag_ids",
    "models",
    "search",
]

_GROUPS = {"day": "i.day", "dag": "i.dag_id", "model": "coalesce(i.model, '')"}
_RECEIPTS = "left join receipts r on r.job_id = i.job_id and r.location = i.location"
_SUMS = (
    "sum(i.images) as images, sum(i.images * (i.state = 'stored')) as stored,"
    " sum(i.images * (i.state = 'failed')) as failed, sum(i.images * (i.state = 'moderated')) as moderated,"
    " sum(i.cost) as cost, sum(i.reused) as reused, sum(i.lost) as lost, sum(i.lost_cost) as lost_cost,"
    " sum(i.unknown_costs) as unknown_costs"
)
# What a reused image cost is known from its receipt, or from the run that paid for it.
_REUSED_COST = "sum(coalesce(r.cost, (select max(p.cost) from images p where p.job_id = i.job_id and not p.reused)))"


@dataclass(frozen=True, slots=True)
class ImageFilter:
    """Which images to show; an attribute of None selects all.

    :param dag_id: The DAG.
    :param model: The model.
    :param state: ``stored``; ``waiting`` (submitted); ``not stored`` (ready, but the task stores none); ``moderated``
        (refused, or withheld when finished); ``failed``; ``not submitted`` (by a batch).
    :param since: Submitted at this moment or later.
    :param until: Submitted before this moment.
    :param text: Words that the prompt contains, in any order and case.
    """

    dag_id: str | None = None
    model: str | None = None
    state: str | None = None
    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    text: str | None = None


@dataclass(frozen=True, slots=True)
class IndexedImage:
    """An image of some run.

    :param prompt: The prompt; None if it is unknown, or not yet read from the receipt.
    :param run_active_at: When the run last used FLUX; images are grouped by run in this order, newest first.
    """

    dag_id: str
    run_id: str
    image: GalleryImage
    prompt: str | None
    run_active_at: datetime.datetime

    @property
    def state(self) -> str:
        """The state, as :class:`ImageFilter` defines it."""
        return self.image.state

    @property
    def returned_at(self) -> datetime.datetime:
        """When the task returned it."""
        return self.image.returned_at


@dataclass(frozen=True, slots=True)
class Totals:
    """What a number of images are, and cost.

    :param images: All of them, whatever their state.
    :param cost: Credits billed to their runs, as far as known; includes ``lost_cost``.
    :param reused: Images that another run paid for.
    :param reused_cost: Credits that the reused images cost whoever paid for them, as far as known.
    :param lost: Jobs that are or may be billed, and have no image.
    :param lost_cost: Credits of those, as far as known.
    :param unknown_costs: Jobs of which no cost is known.
    """

    images: int = 0
    stored: int = 0
    failed: int = 0
    moderated: int = 0
    cost: float = 0.0
    reused: int = 0
    reused_cost: float = 0.0
    lost: int = 0
    lost_cost: float = 0.0
    unknown_costs: int = 0

    @property
    def cost_usd(self) -> float:
        """The cost in US dollars at the price of a credit."""
        return to_usd(self.cost)


@dataclass(frozen=True, slots=True)
class CostRow:
    """The totals of one group.

    :param key: The group's day (UTC, in ISO 8601), DAG and model, as far as ``by`` names them; an unknown model is
        empty.
    """

    key: dict[str, str]
    totals: Totals


@dataclass(frozen=True, slots=True)
class ImagePage:
    """A part of the images that match a filter.

    :param total: Number of images that match.
    :param totals: Totals of all that match.
    :param progress: How far the index is; it is complete if all runs are in it.
    """

    images: list[IndexedImage]
    total: int
    totals: Totals
    progress: Progress

    @property
    def is_complete(self) -> bool:
        """Whether the index has every run."""
        return self.progress.is_complete


def search(dag_ids: Collection[str], which: ImageFilter, limit: int, offset: int = 0) -> ImagePage:
    """Return images of these DAGs that match, newest run first.

    :param dag_ids: The DAGs whose XComs the user may read.
    """
    progress = indexing.refresh()
    condition, values = _condition(dag_ids, which)
    with index_file.connect() as connection:
        (row,) = _cost_rows(connection, dag_ids, which, ())
        # SQLite keeps the order of a cross join, and of this index: so it need not sort all images.
        rows = connection.execute(
            "select i.*, runs.last_active_at, coalesce(i.prompt, r.prompt) as known_prompt"
            " from runs indexed by runs_order"
            f" cross join images i on i.dag_id = runs.dag_id and i.run_id = runs.run_id {_RECEIPTS}"
            f" where {condition} order by runs.last_active_at desc, runs.dag_id, runs.run_id, i.position"
            " limit ? offset ?",
            [*values, limit, offset],
        )
        images = [_indexed_image(row) for row in rows]
    return ImagePage(images, row.totals.images, row.totals, progress)


def aggregate(
    dag_ids: Collection[str], which: ImageFilter, by: Sequence[str] = ("day", "dag", "model")
) -> list[CostRow]:
    """Return the totals of each group, in the order of the groups.

    :param dag_ids: The DAGs whose XComs the user may read.
    :param by: ``"day"``, ``"dag"``, ``"model"``, in any combination; none: one row of everything.
    :raises KeyError: for any other name.
    """
    indexing.refresh()
    with index_file.connect() as connection:
        return _cost_rows(connection, dag_ids, which, by)


def _cost_rows(
    connection: sqlite3.Connection, dag_ids: Collection[str], which: ImageFilter, by: Sequence[str]
) -> list[CostRow]:
    columns = "".join(f"{_GROUPS[name]} as {name}_key, " for name in by)
    names = ", ".join(_GROUPS[name] for name in by)
    groups = f" group by {names} order by {names}" if by else ""
    condition, values = _condition(dag_ids, which)
    images = f"{_RECEIPTS} where {condition}"
    # Far fewer rows than images; a text or a time of day is not in them.
    sums = f"sums i where {condition}" if _is_by_day(which) else f"(select i.*, 1 as images from images i {images}) i"
    query = (
        f"select {columns}{_REUSED_COST} as cost from images i indexed by images_reused {images} and i.reused{groups}"
    )
    reused_costs = {tuple(row)[:-1]: row["cost"] for row in connection.execute(query, values)}
    rows = connection.execute(f"select {columns}{_SUMS} from {sums}{groups}", values)
    return [_cost_row(row, by, reused_costs) for row in rows]


def _cost_row(row: sqlite3.Row, by: Sequence[str], reused_costs: dict[tuple[Any, ...], float | None]) -> CostRow:
    key = {name: row[f"{name}_key"] for name in by}
    known = {name: row[name] or 0 for name in row.keys() if name in Totals.__slots__}  # noqa: SIM118 - iterates values
    return CostRow(key, Totals(**known, reused_cost=reused_costs.get(tuple(key.values())) or 0.0))


def indexed_dag_ids() -> list[str]:
    """Return the DAGs that have runs in the index, in alphabetical order; check which of them the user may read."""
    indexing.refresh()
    with index_file.connect() as connection:
        return [row["dag_id"] for row in connection.execute("select distinct dag_id from runs order by dag_id")]


def models(dag_ids: Collection[str]) -> list[str]:
    """Return the models of the images of these DAGs, in alphabetical order."""
    condition, values = _condition(dag_ids, ImageFilter())
    query = f"select distinct i.model from sums i where {condition} and i.model is not null order by i.model"
    with index_file.connect() as connection:
        return [row["model"] for row in connection.execute(query, values)]


def _condition(dag_ids: Collection[str], which: ImageFilter) -> tuple[str, list[Any]]:
    # One parameter, whatever their number: SQLite limits the number of parameters.
    parts = ["i.dag_id in (select value from json_each(?))"]
    values: list[Any] = [index_file.to_json(sorted(dag_ids))]
    for column, value in (("i.dag_id", which.dag_id), ("i.model", which.model), ("i.state", which.state)):
        if value is not None:
            parts.append(f"{column} = ?")
            values.append(value)
    is_by_day = _is_by_day(which)
    for comparison, moment in ((">=", which.since), ("<", which.until)):
        if moment is not None:
            parts.append(f"{'i.day' if is_by_day else 'i.created_at'} {comparison} ?")
            values.append(_utc(moment).date().isoformat() if is_by_day else _utc(moment).timestamp())
    for word in (which.text or "").split():
        parts.append("instr(coalesce(i.folded_prompt, r.folded_prompt), ?) > 0")
        values.append(index_file.fold(word))
    return " and ".join(parts), values


def _is_by_day(which: ImageFilter) -> bool:
    """Return whether the filter distinguishes whole days (UTC) only, and no texts."""
    moments = [_utc(moment).time() for moment in (which.since, which.until) if moment is not None]
    return not (which.text or "").split() and set(moments) <= {datetime.time()}


def _utc(moment: datetime.datetime) -> datetime.datetime:
    return moment.astimezone(datetime.UTC) if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)


def _indexed_image(row: sqlite3.Row) -> IndexedImage:
    active_at = datetime.datetime.fromtimestamp(row["last_active_at"], datetime.UTC)
    return IndexedImage(row["dag_id"], row["run_id"], index_file.image_of(row), row["known_prompt"], active_at)
