"""The gallery's web app: its routes.

A path names a DAG, a run, a task and a number, never a file in a store.
"""

from __future__ import annotations

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
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.base import BaseHTTPMiddleware

from airflow_provider_flux.gallery import contents, pages, queries, reading, thumbnails
from airflow_provider_flux.gallery.queries import RunSummary, Selection
from airflow_provider_flux.gallery.results import GalleryImage, images_in
from airflow_provider_flux.gallery.security import IMAGE_POLICY, MAY_READ_DAG, add_headers, readable_dag_ids
from airflow_provider_flux.receipts.recipe import without_webhook

log = logging.getLogger(__name__)

STATIC_FILES = {path.name: path for path in (Path(__file__).parent / "static").iterdir()}
RUN = "/dags/{dag_id}/runs/{run_id}"
TASK = RUN + "/tasks/{task_id}/{map_index}"
IMAGE = TASK + "/images/{number}"

Page = Annotated[int, Query(ge=1, le=1_000_000)]


def create_app() -> FastAPI:
    """Return the app; every route needs a logged-in user, and those of a DAG read access to its XComs."""
    # The generated documentation would be open to everyone.
    app = FastAPI(
        title="FLUX gallery",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        exception_handlers={StarletteHTTPException: _error_response, reading.UnreadableError: _unreadable_response},
    )
    app.add_middleware(BaseHTTPMiddleware, dispatch=_respond_with_headers)
    app.add_api_route("/", show_runs)
    app.add_api_route("/static/{name}", static_file)
    dag_routes: dict[str, Any] = {
        RUN: show_run,
        TASK: show_task,
        TASK + "/image": image_link,
        IMAGE: full_image,
        IMAGE + "/thumbnail": thumbnail,
        IMAGE + "/recipe": recipe,
    }
    for path, route in dag_routes.items():
        app.add_api_route(path, route, dependencies=[MAY_READ_DAG])
    return app


async def show_runs(request: Request, user: GetUserDep, page: Page = 1) -> HTMLResponse:
    """Show the latest runs that used FLUX, of the DAGs that the user may read."""

    def find_runs() -> list[RunSummary]:
        dag_ids = readable_dag_ids(queries.flux_dag_ids(), user)
        return queries.recent_runs(dag_ids, pages.PAGE_SIZE + 1, (page - 1) * pages.PAGE_SIZE)

    return pages.runs_page(request, await run_in_threadpool(find_runs), page)


async def show_run(request: Request, dag_id: str, run_id: str, page: Page = 1) -> HTMLResponse:
    """Show the images of a run."""
    return await _show_images(request, Selection(dag_id, run_id), page)


async def show_task(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: str, page: Page = 1
) -> HTMLResponse:
    """Show the images of a task: of all its mapped instances, or of one."""
    return await _show_images(request, Selection(dag_id, run_id, task_id, _parse_map_index(map_index)), page)


async def image_link(request: Request, dag_id: str, run_id: str, task_id: str, map_index: str) -> RedirectResponse:
    """Redirect to the image if the task has stored exactly one, else to the task's page."""
    selection = Selection(dag_id, run_id, task_id, _parse_map_index(map_index))
    results = await contents.load_results(selection)
    stored = [image for result in results for image in images_in(result) if image.uri]
    task_page = f"../{quote(map_index)}"
    return RedirectResponse(pages.image_url(request, selection, stored[0]) if len(stored) == 1 else task_page)


async def _show_images(request: Request, selection: Selection, page: int) -> HTMLResponse:
    found = await contents.load(selection)
    if not found.statuses:
        raise HTTPException(404, "Run or task not found.")
    notes = [str(note) for note in found.notes]
    return await run_in_threadpool(
        pages.images_page, request, selection, found.images, notes, is_finished=found.is_finished, page=page
    )


async def thumbnail(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: str, number: int, v: str = ""
) -> Response:
    """Return the image's thumbnail."""
    image = await _find_stored_image(dag_id, run_id, task_id, map_index, number)
    headers = _image_headers(image, "small", v)
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    data = await reading.run_in_pool(thumbnails.thumbnail, image, reading.read_image)
    return Response(data, media_type=thumbnails.CONTENT_TYPE, headers=headers)


async def full_image(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: str, number: int, v: str = ""
) -> Response:
    """Return the stored image itself."""
    image = await _find_stored_image(dag_id, run_id, task_id, map_index, number)
    headers = _image_headers(image, "full", v)
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    data, image_format = await reading.run_in_pool(reading.read_image_and_format, image)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{task_id}-{image.job_id or number}.{image_format}")
    headers["Content-Disposition"] = f'inline; filename="{name}"'
    return Response(data, media_type=f"image/{image_format}", headers=headers)


async def recipe(dag_id: str, run_id: str, task_id: str, map_index: str, number: int) -> JSONResponse:
    """Return the image's model and parameters, as its receipt has them."""
    image = await _find_image(dag_id, run_id, task_id, map_index, number)
    try:
        receipt = await reading.run_in_pool(reading.read_image_receipt, image)
    except reading.UnreadableError as error:
        return JSONResponse({"note": str(error)})
    if receipt is None or receipt.parameters is None:
        return JSONResponse({"note": "Prompt unavailable (no receipt)"})
    fields: dict[str, Any] = {"model": receipt.model, **without_webhook(receipt.parameters)}
    if fields.get("seed") is None and image.seed is not None:
        fields["seed"] = image.seed
    # The text is what the page copies: a browser that parses the recipe rounds a seed above 2**53.
    text = json.dumps(fields, indent=2, ensure_ascii=False)
    return JSONResponse({"prompt": fields.get("prompt"), "recipe": fields, "text": text})


async def static_file(name: str, user: GetUserDep) -> FileResponse:
    """Return one of the gallery's style sheets, scripts and icons."""
    if name not in STATIC_FILES:
        raise HTTPException(404, "File not found.")
    return FileResponse(STATIC_FILES[name], headers={"Cache-Control": "private, no-cache"})


async def _find_stored_image(dag_id: str, run_id: str, task_id: str, map_index: str, number: int) -> GalleryImage:
    image = await _find_image(dag_id, run_id, task_id, map_index, number)
    if image.uri is None:
        raise HTTPException(404, "The image is not stored.")
    return image


async def _find_image(dag_id: str, run_id: str, task_id: str, map_index: str, number: int) -> GalleryImage:
    """Return the image, stored or not, with this number in the task instance's result."""
    index = _parse_map_index(map_index)
    if index is None:
        raise HTTPException(404, "The path needs the map index of one task instance.")
    image = await contents.find_image(Selection(dag_id, run_id, task_id, index), number)
    if image is not None:
        return image
    raise HTTPException(404, "The task's result does not contain this image.")


def _parse_map_index(text: str) -> int | None:
    """Return a map index; None for the placeholder that Airflow leaves in the link of a task that is not mapped."""
    if text == "{MAP_INDEX}":
        return None
    if not re.fullmatch(r"-1|\d{1,9}", text):
        raise HTTPException(404, "Run or task not found.")
    return int(text)


def _image_headers(image: GalleryImage, form: str, version: str) -> dict[str, str]:
    is_versioned = version and (image.sha256 or "").startswith(version)
    return {
        "ETag": f'"{image.sha256}-{form}"',
        "Cache-Control": "private, max-age=31536000, immutable" if is_versioned else "private, no-cache",
        "Content-Security-Policy": IMAGE_POLICY,
    }


async def _respond_with_headers(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
    try:
        response = await call_next(request)
    except Exception:
        # Caught here because the app's own handler for unexpected exceptions responds without the headers.
        log.exception("The gallery failed to respond to %r.", request.url.path)
        response = await _error_response(request, HTTPException(500, "Internal error. See the API server's log."))
    return add_headers(response)


async def _error_response(request: Request, error: Any) -> Response:
    if "text/html" not in request.headers.get("Accept", ""):
        return await http_exception_handler(request, error)
    return pages.message_page(request, error.status_code, str(error.detail))


async def _unreadable_response(request: Request, error: Any) -> Response:
    return await _error_response(request, HTTPException(502, str(error)))
