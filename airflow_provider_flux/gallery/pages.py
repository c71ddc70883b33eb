"""The gallery's pages: what a card shows, and which page of many."""

from __future__ import annotations

import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from fastapi import Request
from fastapi.responses import HTMLResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from airflow_provider_flux.client.jobs import unix_time
from airflow_provider_flux.gallery.queries import Run
from airflow_provider_flux.gallery.results import Image
from airflow_provider_flux.gallery.thumbnails import SIDE

SIZE = 48
"""Images, or runs, on a page."""

_HELP = {
    401: "Log in to Airflow, and open this page again.",
    403: "Reading the XComs of this DAG is needed to see its images.",
}
_templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"), autoescape=True, undefined=StrictUndefined
)


def images_page(
    request: Request, names: Sequence[Any], images: Sequence[Image], notes: Sequence[str], page: int
) -> HTMLResponse:
    """Return the page that shows images.

    :param names: DAG and run, and perhaps task and map index, that they are of.
    :param notes: Sentences on the tasks that made none.
    """
    dag_id, run_id, *task = names
    root = _root(request)
    shown = images[(page - 1) * SIZE : page * SIZE]
    return _render(
        "images.html",
        _static(request),
        dag_id=dag_id,
        run_id=run_id,
        task=_task_name(task[0], task[1] if task[1] is not None else -1) if task else None,
        cards=[_card(image, root, dag_id, run_id) for image in shown],
        notes=notes,
        total=len(images),
        first=(page - 1) * SIZE + 1,
        page=page,
        last_page=max(1, -(-len(images) // SIZE)),
    )


def runs_page(request: Request, runs: Sequence[Run], page: int) -> HTMLResponse:
    """Return the page that lists runs; one more than a page holds tells that there is a next page."""
    rows = [
        {
            "dag_id": run.dag_id,
            "run_id": run.run_id,
            "tasks": run.tasks,
            "at": _time(run.at),
            "href": _run_path(_root(request), run.dag_id, run.run_id),
        }
        for run in runs[:SIZE]
    ]
    return _render("runs.html", _static(request), rows=rows, page=page, last_page=page + (len(runs) > SIZE))


def message_page(request: Request, status: int, message: str) -> HTMLResponse:
    """Return a page that says why there is nothing to see."""
    # Who is not logged in may not have the style sheet either.
    static = None if status == 401 else _static(request)
    return _render("message.html", static, status=status, message=message, help=_HELP.get(status, ""))


def image_path(request: Request, dag_id: str, run_id: str, image: Image) -> str:
    """Return the address of a stored image, which a browser may keep."""
    return _image_path(_root(request), dag_id, run_id, image) + _version(image)


def _render(template: str, static: str | None, *, status: int = 200, **names: Any) -> HTMLResponse:
    return HTMLResponse(_templates.get_template(template).render(static=static, **names), status)


def _static(request: Request) -> str:
    return f"{_root(request)}/static"


def _root(request: Request) -> str:
    return str(request.scope.get("root_path", ""))


def _run_path(root: str, dag_id: str, run_id: str) -> str:
    return f"{root}/dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"


def _image_path(root: str, dag_id: str, run_id: str, image: Image) -> str:
    task = f"tasks/{quote(image.task_id, safe='')}/{image.map_index}"
    return f"{_run_path(root, dag_id, run_id)}/{task}/images/{image.number}"


def _version(image: Image) -> str:
    return f"?v={image.sha256[:16]}" if image.sha256 else ""


def _task_name(task_id: str, map_index: int) -> str:
    return task_id if map_index < 0 else f"{task_id} [{map_index}]"


def _card(image: Image, root: str, dag_id: str, run_id: str) -> dict[str, Any]:
    width, height = image.number_of("width"), image.number_of("height")
    task = _task_name(image.task_id, image.map_index)
    href, version = _image_path(root, dag_id, run_id, image), _version(image)
    size = image.number_of("bytes")
    return {
        "is_stored": image.uri is not None,
        "href": href + version,
        "thumbnail": f"{href}/thumbnail{version}",
        "recipe": f"{href}/recipe" if image.place else None,
        "alt": f"Image by {image.model or 'FLUX'}, made by {task}",
        "problem": f"Not stored by {task}: {image.problem}"
        if image.problem
        else f"Submitted by {task}; its image is not stored here.",
        "facts": {
            "Model": image.model,
            "Seed": image.seed,
            "Size": f"{width:.0f} × {height:.0f}" if width and height else None,  # noqa: RUF001 - the sign itself
            "File": None if size is None else f"{size / 1000:,.0f} kB",
            "Cost": _cost(image),
            "Task": task,
            "Job": image.job_id,
        },
        "at": _time(_made_at(image)),
        **_thumbnail_size(width, height),
    }


def _cost(image: Image) -> str | None:
    cost = image.number_of("cost")
    if not image.told.get("reused"):
        return None if cost is None else f"{cost:g} credits"
    paid_by = image.told.get("paid_by")
    if not isinstance(paid_by, dict):
        return "0 (reused)"
    return f"{cost:g} credits (first try)" if cost else f"0 (reused from run {paid_by.get('run_id')})"


def _made_at(image: Image) -> datetime.datetime:
    submitted = unix_time(image.told.get("submitted_at"))
    try:
        return datetime.datetime.fromtimestamp(submitted, datetime.UTC) if submitted else image.at
    except (ValueError, OverflowError, OSError):
        return image.at


def _time(at: datetime.datetime) -> dict[str, str]:
    at = at.replace(tzinfo=datetime.UTC) if at.tzinfo is None else at.astimezone(datetime.UTC)
    return {"iso": at.isoformat(timespec="seconds"), "text": f"{at:%Y-%m-%d %H:%M:%S} UTC"}


def _thumbnail_size(width: float | None, height: float | None) -> dict[str, int]:
    """Return the thumbnail's size, so that the page does not jump while thumbnails come."""
    if not width or not height or width < 0 or height < 0:
        return {"width": SIDE, "height": SIDE}
    scale = min(1, SIDE / max(width, height))
    return {"width": max(1, round(width * scale)), "height": max(1, round(height * scale))}
