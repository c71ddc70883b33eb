"""The gallery's web app: which address answers with what.

Addresses name a DAG, a run, a task and a number; never a place in a store.
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import FastAPI, HTTPException, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException as AnyHTTPException
from starlette.middleware.base import BaseHTTPMiddleware

from airflow_provider_flux.gallery import pages, reading, thumbnails
from airflow_provider_flux.gallery import queries as runs
from airflow_provider_flux.gallery.notes import notes_on
from airflow_provider_flux.gallery.results import Image, images_in, one_for_each_job
from airflow_provider_flux.gallery.security import IMAGE_POLICY, MAY_READ_DAG, add_headers, permitted
from airflow_provider_flux.receipts.recipe import without_webhook

log = logging.getLogger(__name__)

STATIC = {path.name: path for path in (Path(__file__).parent / "static").iterdir()}
RUN = "/dags/{dag_id}/runs/{run_id}"
TASK = RUN + "/tasks/{task_id}/{map_index}"
IMAGE = TASK + "/images/{number}"

Page = Annotated[int, Query(ge=1, le=1_000_000)]


def create_app() -> FastAPI:
    """Return the app; whatever it answers needs a user, and read access to the DAG's XComs."""
    # Without its documentation, which would be open to everybody.
    app = FastAPI(
        title="FLUX gallery",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers={AnyHTTPException: _error, reading.UnreadableError: _unreadable},
    )
    app.add_middleware(BaseHTTPMiddleware, dispatch=_answer)
    app.add_api_route("/", show_runs)
    app.add_api_route("/static/{name}", static)
    of_a_dag: dict[str, Any] = {
        RUN: show_run,
        TASK: show_task,
        TASK + "/picture": picture,
        IMAGE: full_image,
        IMAGE + "/thumbnail": thumbnail,
        IMAGE + "/recipe": recipe,
    }
    for path, route in of_a_dag.items():
        app.add_api_route(path, route, dependencies=[MAY_READ_DAG])
    return app


async def show_runs(request: Request, user: GetUserDep, page: Page = 1) -> HTMLResponse:
    """Show the latest runs in which FLUX was used, of those DAGs that the user may read."""

    def find() -> list[runs.Run]:
        dag_ids = permitted(runs.dags_with_images(), user)
        return runs.recent_runs(dag_ids, pages.SIZE + 1, (page - 1) * pages.SIZE)

    return pages.runs_page(request, await run_in_threadpool(find), page)


async def show_run(request: Request, dag_id: str, run_id: str, page: Page = 1) -> HTMLResponse:
    """Show what a run made."""
    return await _show(request, page, dag_id, run_id)


async def show_task(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: str, page: Page = 1
) -> HTMLResponse:
    """Show what a task made: all of it, or one mapped instance."""
    return await _show(request, page, dag_id, run_id, task_id, _index(map_index))


async def picture(request: Request, dag_id: str, run_id: str, task_id: str, map_index: str) -> RedirectResponse:
    """Lead to the image, if the task has stored a single one; else to the page that says how far it is."""
    returned = await run_in_threadpool(runs.returned, dag_id, run_id, task_id, _index(map_index))
    stored = [image for one in returned for image in images_in(one) if image.uri]
    page = f"../{quote(map_index)}"
    return RedirectResponse(pages.image_path(request, dag_id, run_id, stored[0]) if len(stored) == 1 else page)


async def _show(request: Request, page: int, *names: Any) -> HTMLResponse:
    tasks = await run_in_threadpool(runs.tasks, *names)
    if not tasks:
        raise HTTPException(404, "There is no such run or task.")
    returned = await run_in_threadpool(runs.returned, *names)
    answers = await asyncio.gather(*map(reading.manifest, returned), return_exceptions=True)

    def make_page() -> HTMLResponse:
        found, notes, told = [], [], set()
        for item, answer in zip(returned, answers, strict=True):
            if isinstance(answer, reading.UnreadableError):
                images, problem = [], [f"{item.task_id}: {answer}"]
            elif isinstance(answer, BaseException):
                raise answer
            else:
                images, problem = list(images_in(item, answer)), []
            found += images
            notes += problem
            if images or problem:
                told.add((item.task_id, item.map_index))
        one_task = len(names) > 2
        silent = [t for t in tasks if (t.task_id, t.map_index) not in told and (t.is_flux or one_task)]
        return pages.images_page(request, names, one_for_each_job(found), [*notes, *notes_on(silent)], page)

    # Not on the event loop: a batch may be of a hundred thousand images.
    return await run_in_threadpool(make_page)


async def thumbnail(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: str, number: int, v: str = ""
) -> Response:
    """ApiResponse with a small picture of the image."""
    image = await _find_stored(dag_id, run_id, task_id, map_index, number)
    headers = _image_headers(image, "small", v)
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    data = await reading.in_thread(thumbnails.thumbnail, image, reading.read_image)
    return Response(data, media_type=thumbnails.CONTENT_TYPE, headers=headers)


async def full_image(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: str, number: int, v: str = ""
) -> Response:
    """ApiResponse with the image itself."""
    image = await _find_stored(dag_id, run_id, task_id, map_index, number)
    headers = _image_headers(image, "full", v)
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    data = await reading.in_thread(reading.read_image, image)
    content_type, suffix = reading.content_type_of(data)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{task_id}-{image.job_id or number}.{suffix}")
    headers["Content-Disposition"] = f'inline; filename="{name}"'
    return Response(data, media_type=content_type, headers=headers)


async def recipe(dag_id: str, run_id: str, task_id: str, map_index: str, number: int) -> JSONResponse:
    """ApiResponse with what was asked for, as far as the receipt beside the image tells."""
    image = await _find(dag_id, run_id, task_id, map_index, number)
    try:
        receipt = await reading.in_thread(reading.read_recipe, image)
    except reading.UnreadableError as error:
        return JSONResponse({"note": str(error)})
    if receipt is None or receipt.parameters is None:
        return JSONResponse({"note": "No receipt tells what was asked for."})
    asked: dict[str, Any] = {"model": receipt.model, **without_webhook(receipt.parameters)}
    if asked.get("seed") is None and image.seed is not None:
        asked["seed"] = image.seed
    # The text is what is copied: a browser that parses the recipe rounds a seed above 2**53.
    text = json.dumps(asked, indent=2, ensure_ascii=False)
    return JSONResponse({"prompt": asked.get("prompt"), "recipe": asked, "text": text})


async def static(name: str, user: GetUserDep) -> FileResponse:
    """ApiResponse with one of our style sheets and scripts."""
    if name not in STATIC:
        raise HTTPException(404, "There is no such file.")
    return FileResponse(STATIC[name], headers={"Cache-Control": "private, no-cache"})


async def _find_stored(dag_id: str, run_id: str, task_id: str, map_index: str, number: int) -> Image:
    image = await _find(dag_id, run_id, task_id, map_index, number)
    if image.uri is None:
        raise HTTPException(404, "The image is not stored.")
    return image


async def _find(dag_id: str, run_id: str, task_id: str, map_index: str, number: int) -> Image:
    """Return the image, stored or not, that this very task instance's result names."""
    index = _index(map_index)
    if index is None:
        raise HTTPException(404, "Which of the task's instances?")
    for returned in await run_in_threadpool(runs.returned, dag_id, run_id, task_id, index):
        lines = await reading.manifest(returned)
        if lines is not None:
            lines = {number: lines[number]} if number in lines else {}
        for image in images_in(returned, lines):
            if image.number == number:
                return image
    raise HTTPException(404, "The task's result names no such image.")


def _index(text: str) -> int | None:
    """Return a map index; None for what Airflow leaves in its place on the page of a task that is not mapped."""
    if text == "{MAP_INDEX}":
        return None
    if not re.fullmatch(r"-1|\d{1,9}", text):
        raise HTTPException(404, "There is no such run or task.")
    return int(text)


def _image_headers(image: Image, form: str, version: str) -> dict[str, str]:
    is_named = version and (image.sha256 or "").startswith(version)
    return {
        "ETag": f'"{image.sha256}-{form}"',
        "Cache-Control": "private, max-age=31536000, immutable" if is_named else "private, no-cache",
        "Content-Security-Policy": IMAGE_POLICY,
    }


async def _answer(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    try:
        response = await call_next(request)
    except Exception:
        # Here, since an app's handler for any exception would answer without the headers.
        log.exception("The gallery failed to answer %r.", request.url.path)
        response = await _error(request, HTTPException(500, "This could not be shown; the API server's log says why."))
    return add_headers(response)


async def _error(request: Request, error: Any) -> Response:
    if "text/html" not in request.headers.get("Accept", ""):
        return await http_exception_handler(request, error)
    return pages.message_page(request, error.status_code, str(error.detail))


async def _unreadable(request: Request, error: Any) -> Response:
    return await _error(request, HTTPException(502, str(error)))
