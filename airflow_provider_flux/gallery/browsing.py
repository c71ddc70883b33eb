"""The page Browse > FLUX Images: the images of all runs that match a search, grouped by run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from fastapi import Request
from fastapi.responses import HTMLResponse

from airflow_provider_flux.client.catalogue.prices import format_usd
from airflow_provider_flux.gallery import pages
from airflow_provider_flux.gallery.addresses import Addresses
from airflow_provider_flux.gallery.index import ImagePage, IndexedImage, Totals
from airflow_provider_flux.gallery.results import STATES
from airflow_provider_flux.gallery.search import Search
from airflow_provider_flux.gallery.tiles import Tile, Timestamp, digest, tile_of, timestamp

_ACTIVE = ("queued", "running")


@dataclass(frozen=True, slots=True)
class RunGroup:
    """The images of one run on the page.

    :param id: Unique in the page, and the same on each refresh.
    :param state: Airflow's name of the run's state; None if the run is gone.
    """

    id: str
    dag_id: str
    run_id: str
    state: str | None
    active_at: Timestamp
    url: str
    airflow_url: str
    tiles: Sequence[Tile]


def browse_page(
    request: Request,
    which: Search,
    found: ImagePage,
    states: Mapping[tuple[str, str], str],
    dag_ids: Sequence[str],
    models: Sequence[str],
    page: int,
) -> HTMLResponse:
    """Return a page of the images that a search finds.

    :param states: The states of their runs, by DAG and run.
    :param dag_ids: The DAGs that the user can choose.
    :param models: The models that the user can choose.
    """
    addresses = pages.addresses_of(request)
    first = (page - 1) * pages.PAGE_SIZE
    runs = _runs(found.images, first, states, addresses)
    is_changing = not found.is_complete or (page == 1 and any(run.state in _ACTIVE for run in runs))
    return pages.render(
        "browse.html",
        request,
        search=which,
        query=which.query,
        runs=runs,
        total=found.total,
        totals=totals_text(found.totals),
        progress=None if found.is_complete else found.progress,
        dag_ids=dag_ids,
        models=models,
        states=STATES,
        page=page,
        last_page=max(1, -(-found.total // pages.PAGE_SIZE)),
        refresh_seconds=pages.refresh_seconds() if is_changing else None,
    )


def totals_text(totals: Totals) -> str:
    """Return totals as a line: ``"1,204 images · 3,010 cr ($30.10) · 12 failed"``."""
    parts = [
        f"{totals.images:,} {'image' if totals.images == 1 else 'images'}",
        f"{totals.cost:,.10g} cr ({format_usd(totals.cost)})",
        f"{totals.failed:,} failed" if totals.failed else "",
        f"{totals.moderated:,} moderated" if totals.moderated else "",
    ]
    return " · ".join(filter(None, parts))


def _runs(
    images: Sequence[IndexedImage], first: int, states: Mapping[tuple[str, str], str], addresses: Addresses
) -> list[RunGroup]:
    positions = iter(range(first + 1, first + 1 + len(images)))
    groups = []
    for (dag_id, run_id), some in groupby(images, lambda image: (image.dag_id, image.run_id)):
        shown = list(some)
        tiles = [tile_of(one.image, pages.key_of_indexed(one), addresses, next(positions), one.prompt) for one in shown]
        groups.append(
            RunGroup(
                id=f"run-{digest(f'{dag_id} {run_id}')}",
                dag_id=dag_id,
                run_id=run_id,
                state=states.get((dag_id, run_id)),
                active_at=timestamp(shown[0].run_active_at),
                url=addresses.run(dag_id, run_id),
                airflow_url=addresses.airflow_run(dag_id, run_id),
                tiles=tiles,
            )
        )
    return groups
