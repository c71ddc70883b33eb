"""The gallery's web app: its routes.

A path names a DAG, a run, a task and a number, never a file in a store.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.exception_handlers import http_exception_handler
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware.base import BaseHTTPMiddleware

from airflow_provider_flux.gallery import cost_routes, download_routes, image_routes, page_routes, pages, reading
from airflow_provider_flux.gallery.security import MAY_READ_DAG, add_headers

log = logging.getLogger(__name__)

STATIC_FILES = {path.name: path for path in (Path(__file__).parent / "static").iterdir()}
RUN = "/dags/{dag_id}/runs/{run_id}"
GROUP = RUN + "/groups/{group_id}"
TASK = RUN + "/tasks/{task_id}/{map_index}"
IMAGE = TASK + "/images/{number}"


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
    # These select DAGs, and check each one.
    routes: dict[str, Any] = {
        "/": page_routes.browse,
        "/compare": page_routes.compare,
        "/costs": cost_routes.costs,
        "/costs.csv": cost_routes.costs_csv,
        "/images.zip": download_routes.found_zip,
        "/images.csv": download_routes.found_csv,
        "/static/{name}": static_file,
    }
    for path, route in routes.items():
        app.add_api_route(path, route)
    dag_routes: dict[str, Any] = {
        RUN: page_routes.show_run,
        RUN + "/images.zip": download_routes.run_zip,
        RUN + "/images.csv": download_routes.run_csv,
        GROUP: page_routes.show_group,
        GROUP + "/{map_index}": page_routes.show_group,
        GROUP + "/{map_index}/images.zip": download_routes.group_zip,
        GROUP + "/{map_index}/images.csv": download_routes.group_csv,
        TASK: page_routes.show_task,
        TASK + "/images.zip": download_routes.task_zip,
        TASK + "/images.csv": download_routes.task_csv,
        TASK + "/image": image_routes.image_link,
        IMAGE: image_routes.full_image,
        IMAGE + "/thumbnail": image_routes.thumbnail,
        IMAGE + "/recipe": image_routes.recipe,
    }
    for path, route in dag_routes.items():
        app.add_api_route(path, route, dependencies=[MAY_READ_DAG])
    return app


async def static_file(name: str, user: GetUserDep) -> FileResponse:
    """Return one of the gallery's style sheets, scripts and icons."""
    if name not in STATIC_FILES:
        raise HTTPException(404, "File not found.")
    return FileResponse(STATIC_FILES[name], headers={"Cache-Control": "private, no-cache"})


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
