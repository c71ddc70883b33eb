"""The gallery's HTML pages: what a card shows, and which images are on which page."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_provider_flux.client.catalogue.prices import format_cost
from airflow_provider_flux.client.jobs import unix_time
from airflow_provider_flux.gallery.queries import RunSummary, Selection
from airflow_provider_flux.gallery.results import GalleryImage
from airflow_provider_flux.gallery.thumbnails import MAX_SIDE

PAGE_SIZE = 48
"""Images, or runs, on a page."""

_HELP = {
    401: "Log in to Airflow, then reload this page.",
    403: "You need read access to the XComs of this DAG.",
}
_CREDENTIALS: dict[bool | None, str] = {True: "present, not verified", False: "none"}
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A moment, as a ``<time>`` element shows it."""

    iso: str
    text: str


@dataclass(frozen=True, slots=True)
class Card:
    """What the page shows of one image.

    :param image_url: The full image; exists only if ``is_stored``.
    :param recipe_url: Prompt and recipe; None if the receipt's location is unknown.
    :param alt: Alternative text of the thumbnail.
    :param placeholder: Text in place of an image that is not stored.
    :param facts: Label and value; a value of None is not shown.
    :param width: Width of the thumbnail, in pixels.
    :param height: Height of the thumbnail, in pixels.
    """

    is_stored: bool
    image_url: str
    thumbnail_url: str
    recipe_url: str | None
    alt: str
    placeholder: str
    facts: Mapping[str, Any]
    created_at: Timestamp
    width: int
    height: int


def images_page(
    request: Request,
    selection: Selection,
    images: Sequence[GalleryImage],
    notes: Sequence[str],
    *,
    is_finished: bool,
    page: int,
) -> HTMLResponse:
    """Return one page of the selected task instances' images.

    :param images: All of them; the page shows a part.
    :param notes: Sentences on the tasks without an image.
    :param is_finished: Whether no task can return further images.
    """
    map_index = -1 if selection.map_index is None else selection.map_index
    first = (page - 1) * PAGE_SIZE
    return _render(
        "images.html",
        _static(request),
        dag_id=selection.dag_id,
        run_id=selection.run_id,
        task=selection.task_id and _task_name(selection.task_id, map_index),
        cards=[_card(image, _root(request), selection) for image in images[first : first + PAGE_SIZE]],
        notes=notes,
        is_finished=is_finished,
        total=len(images),
        first=first + 1,
        page=page,
        last_page=max(1, -(-len(images) // PAGE_SIZE)),
    )


def runs_page(request: Request, runs: Sequence[RunSummary], page: int) -> HTMLResponse:
    """Return the page that lists runs.

    :param runs: The page's runs, and one more if there is a next page.
    """
    rows = [
        {
            "dag_id": run.dag_id,
            "run_id": run.run_id,
            "flux_tasks": run.flux_tasks,
            "last_active_at": _timestamp(run.last_active_at),
            "url": _run_url(_root(request), run.dag_id, run.run_id),
        }
        for run in runs[:PAGE_SIZE]
    ]
    return _render("runs.html", _static(request), rows=rows, page=page, last_page=page + (len(runs) > PAGE_SIZE))


def message_page(request: Request, status: int, message: str) -> HTMLResponse:
    """Return a page that shows an error."""
    # The style sheet needs a login too.
    static = None if status == 401 else _static(request)
    return _render("message.html", static, status=status, message=message, help=_HELP.get(status, ""))


def image_url(request: Request, selection: Selection, image: GalleryImage) -> str:
    """Return the path of a stored image, with the hash that lets a browser cache it."""
    return _image_url(_root(request), selection, image) + _version(image)


def _render(template: str, static: str | None, *, status: int = 200, **names: Any) -> HTMLResponse:
    return HTMLResponse(_templates.get_template(template).render(static=static, **names), status)


def _static(request: Request) -> str:
    return f"{_root(request)}/static"


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", ""))


def _run_url(root: str, dag_id: str, run_id: str) -> str:
    return f"{root}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def _image_url(root: str, selection: Selection, image: GalleryImage) -> str:
    task = f"tasks/{quote(image.task_id, safe='')}/{image.map_index}"
    return f"{_run_url(root, selection.dag_id, selection.run_id)}/{task}/images/{image.number}"


def _version(image: GalleryImage) -> str:
    return f"?v={image.sha256[:16]}" if image.sha256 else ""


def _task_name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id} [{map_index}]"


def _card(image: GalleryImage, root: str, selection: Selection) -> Card:
    width, height, size = (image.numeric(name) for name in ("width", "height", "bytes"))
    task = _task_name(image.task_id, image.map_index)
    url, version = _image_url(root, selection, image), _version(image)
    thumbnail_width, thumbnail_height = _thumbnail_size(width, height)
    return Card(
        is_stored=image.uri is not None,
        image_url=url + version,
        thumbnail_url=f"{url}/thumbnail{version}",
        recipe_url=f"{url}/recipe" if image.location else None,
        alt=f"{image.model or 'FLUX'} image by {task}",
        placeholder=f"Not stored by {task}: {image.problem}"
        if image.problem
        else f"Submitted by {task}. The image is not stored.",
        facts={
            "Model": image.model,
            "Seed": image.seed,
            "Size": f"{width:.0f} × {height:.0f}" if width and height else None,  # noqa: RUF001 - the sign itself
            "File": None if size is None else f"{size / 1000:,.0f} kB",
            "Content credentials": _CREDENTIALS.get(image.content_credentials),
            "Cost": _cost(image),
            "Task": task,
            "Job": image.job_id,
        },
        created_at=_timestamp(_created_at(image)),
        width=thumbnail_width,
        height=thumbnail_height,
    )


def _cost(image: GalleryImage) -> str | None:
    cost = image.numeric("cost")
    if not image.fields.get("reused"):
        return None if cost is None else format_cost(cost)
    paid_by = image.fields.get("paid_by")
    if not isinstance(paid_by, dict):
        return "0 (reused)"
    if not cost:
        return f"0 (reused from run {paid_by.get('run_id')})"
    return f"{format_cost(cost)}, paid by an earlier attempt"


def _created_at(image: GalleryImage) -> datetime.datetime:
    submitted = unix_time(image.fields.get("submitted_at"))
    try:
        return datetime.datetime.fromtimestamp(submitted, datetime.UTC) if submitted else image.returned_at
    except (ValueError, OverflowError, OSError):
        return image.returned_at


def _timestamp(moment: datetime.datetime) -> Timestamp:
    utc = moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)
    return Timestamp(utc.isoformat(timespec="seconds"), f"{utc:%Y-%m-%d %H:%M:%S} UTC")


def _thumbnail_size(width: float | None, height: float | None) -> tuple[int, int]:
    """Return the thumbnail's width and height, so that the page does not jump while thumbnails load."""
    if not width or not height or width < 0 or height < 0:
        return MAX_SIDE, MAX_SIDE
    scale = min(1, MAX_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
