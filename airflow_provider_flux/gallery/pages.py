"""The gallery's HTML pages: which images are on which page, and what stands around them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from airflow.configuration import conf
from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_provider_flux.client.catalogue.prices import format_usd
from airflow_provider_flux.gallery.addresses import Addresses, ImageKey
from airflow_provider_flux.gallery.contents import Contents
from airflow_provider_flux.gallery.index import IndexedImage
from airflow_provider_flux.gallery.notes import TaskNote
from airflow_provider_flux.gallery.queries import Selection, TaskStatus
from airflow_provider_flux.gallery.results import GalleryImage
from airflow_provider_flux.gallery.tiles import Tile, task_name, tile_of

PAGE_SIZE = 48
"""Images, or runs, on a page."""

_MOST_PARTS = 12
_HELP = {
    401: "Log in to Airflow, then reload this page.",
    403: "You need read access to the XComs of this DAG.",
}
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


@dataclass(frozen=True, slots=True)
class Notice:
    """What a page says of a task without an image.

    :param task: The task's name.
    :param log_url: Airflow's page with the task's log.
    """

    note: TaskNote
    task: str
    log_url: str


def images_page(request: Request, selection: Selection, found: Contents, *, page: int) -> HTMLResponse:
    """Return one page of the selected task instances' images."""
    addresses = addresses_of(request)
    # A notice says more than a tile.
    noted = {id(note.failure) for note in found.notes}
    images = [image for image in found.images if id(image) not in noted]
    stored = sum(image.uri is not None for image in images)
    last_page = max(1, -(-len(images) // PAGE_SIZE))
    tiles = _tiles_of_page(images, (page - 1) * PAGE_SIZE, selection, addresses)
    unfinished = sum(status.is_flux and not status.is_finished for status in found.statuses)
    skeletons = max(0, min(unfinished, PAGE_SIZE - len(tiles))) if page == last_page else 0
    return render(
        "images.html",
        request,
        dag_id=selection.dag_id,
        run_id=selection.run_id,
        part=_part(selection),
        parts=_parts(found.statuses, selection, addresses),
        all_instances_url=_all_instances(selection, addresses),
        airflow_url=addresses.airflow_run(selection.dag_id, selection.run_id),
        here=_here(selection, addresses),
        tiles=tiles,
        notices=[_notice(note, selection, addresses) for note in found.notes],
        is_finished=found.is_finished,
        skeletons=skeletons,
        is_single=len(images) == stored == 1 and not skeletons,
        refresh_seconds=None if found.is_finished else refresh_seconds(),
        total=len(images),
        stored=stored,
        totals=_totals(found.images),
        first=(page - 1) * PAGE_SIZE + 1,
        page=page,
        last_page=last_page,
    )


def comparison_page(request: Request, compared: Sequence[tuple[ImageKey, GalleryImage, str | None]]) -> HTMLResponse:
    """Return the page that shows images side by side, with their facts.

    :param compared: Each image, with its key and its prompt.
    """
    addresses = addresses_of(request)
    tiles = [tile_of(image, key, addresses, 1, prompt) for key, image, prompt in compared]
    names = list(dict.fromkeys(name for tile in tiles for name, value in tile.facts.items() if value is not None))
    rows = [("Prompt", [tile.prompt for tile in tiles])]
    rows += [(name, [tile.facts.get(name) for tile in tiles]) for name in names]
    return render("compare.html", request, tiles=tiles, rows=rows)


def message_page(request: Request, status: int, message: str) -> HTMLResponse:
    """Return a page that shows an error."""
    # The style sheet needs a login too.
    static = "" if status == 401 else addresses_of(request).static
    return render("message.html", request, code=status, static=static, message=message, help=_HELP.get(status, ""))


def render(template: str, request: Request, *, code: int = 200, **names: Any) -> HTMLResponse:
    """Return a page made from a template.

    :param code: The response's status.
    :param names: The template's variables, besides the addresses that all templates know.
    """
    addresses = addresses_of(request)
    known = {"static": addresses.static, "root": addresses.root, "refresh_seconds": None}
    return HTMLResponse(_templates.get_template(template).render({**known, **names}), code)


def addresses_of(request: Request) -> Addresses:
    """Return the paths below which the request was served."""
    return Addresses(str(request.scope.get("root_path", "")))


def refresh_seconds() -> int:
    """Return how often Airflow's own pages refresh, in seconds."""
    return max(1, conf.getint("api", "auto_refresh_interval", fallback=3))


def _tiles_of_page(
    images: Sequence[GalleryImage], first: int, selection: Selection, addresses: Addresses
) -> list[Tile]:
    position = sum(image.uri is not None for image in images[:first])
    tiles = []
    for image in images[first : first + PAGE_SIZE]:
        position += image.uri is not None
        tiles.append(tile_of(image, key_of(image, selection), addresses, position))
    return tiles


def key_of(image: GalleryImage, selection: Selection) -> ImageKey:
    """Return what names an image of the selection in an address."""
    return ImageKey(selection.dag_id, selection.run_id, image.task_id, image.map_index, image.number)


def key_of_indexed(found: IndexedImage) -> ImageKey:
    """Return what names an image of the index in an address."""
    return key_of(found.image, Selection(found.dag_id, found.run_id))


def _part(selection: Selection) -> str | None:
    name = selection.task_id or selection.group_id
    return name and task_name(name, -1 if selection.map_index is None else selection.map_index)


def _parts(statuses: Iterable[TaskStatus], selection: Selection, addresses: Addresses) -> list[tuple[str, str]]:
    """Return name and path of the task groups and tasks of a run that use FLUX; none if there is only one."""
    if selection.is_part:
        return []
    run = (selection.dag_id, selection.run_id)
    task_ids = sorted({status.task_id for status in statuses if status.is_flux})
    group_ids = sorted({task_id.rpartition(".")[0] for task_id in task_ids if "." in task_id})
    parts = [(group_id, addresses.group(*run, group_id, None)) for group_id in group_ids]
    parts += [(task_id, addresses.task(*run, task_id, None)) for task_id in task_ids]
    return parts[:_MOST_PARTS] if len(parts) > 1 else []


def _all_instances(selection: Selection, addresses: Addresses) -> str | None:
    """Return the path of all mapped instances, for the page of one of them."""
    if selection.map_index is None or selection.map_index < 0:
        return None
    return _here(replace(selection, map_index=None), addresses)


def _notice(note: TaskNote, selection: Selection, addresses: Addresses) -> Notice:
    task = addresses.airflow_task(selection.dag_id, selection.run_id, note.task_id, note.map_indexes)
    name = task_name(note.task_id, note.map_indexes[0] if note.map_indexes else -1)
    return Notice(note, name, task)


def _here(selection: Selection, addresses: Addresses) -> str:
    run = (selection.dag_id, selection.run_id)
    if selection.task_id is not None:
        return addresses.task(*run, selection.task_id, selection.map_index)
    if selection.group_id is not None:
        return addresses.group(*run, selection.group_id, selection.map_index)
    return addresses.run(*run)


def _totals(images: Sequence[GalleryImage]) -> str | None:
    """Return what the run paid: ``"132.5 cr ($1.325) · 3 reused · 1 without an image (2.5 cr)"``; None if unknown."""
    costs = [cost for image in images if (cost := image.numeric("cost")) is not None]
    reused = sum(bool(image.fields.get("reused")) and not image.numeric("cost") for image in images)
    lost = [cost for image in images if image.state in ("failed", "moderated") and (cost := image.numeric("cost"))]
    parts = [
        f"{sum(costs):,.10g} cr ({format_usd(sum(costs))})" if costs else "",
        f"{reused:,} reused" if reused else "",
        f"{len(lost):,} without an image ({sum(lost):,.10g} cr)" if lost else "",
    ]
    return " · ".join(filter(None, parts)) or None
