"""The routes of downloads: the images and the facts of a run, of a task, or of what a search or a user selects."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import HTTPException, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from airflow_provider_flux.gallery import contents, downloads, pages, search
from airflow_provider_flux.gallery.downloads import Entry
from airflow_provider_flux.gallery.image_routes import find_image, group_selection, parse_map_index
from airflow_provider_flux.gallery.queries import Selection
from airflow_provider_flux.gallery.search import Search, SearchDep
from airflow_provider_flux.gallery.selected import KeysDep, check_access

_MAX_FOUND = 100_000
# Each holds one image in memory, and waits for the store most of the time.
_zip_slots = asyncio.Semaphore(4)


async def run_zip(request: Request, dag_id: str, run_id: str) -> StreamingResponse:
    """Return the images of a run as a zip file."""
    return _zip(request, await _entries(Selection(dag_id, run_id)), run_id)


async def run_csv(request: Request, dag_id: str, run_id: str) -> StreamingResponse:
    """Return the facts of a run's images as CSV."""
    return _csv(request, await _entries(Selection(dag_id, run_id)), run_id)


async def task_zip(request: Request, dag_id: str, run_id: str, task_id: str, map_index: str) -> StreamingResponse:
    """Return the images of a task as a zip file."""
    selection = Selection(dag_id, run_id, task_id, parse_map_index(map_index))
    return _zip(request, await _entries(selection), f"{run_id}-{task_id}")


async def task_csv(request: Request, dag_id: str, run_id: str, task_id: str, map_index: str) -> StreamingResponse:
    """Return the facts of a task's images as CSV."""
    selection = Selection(dag_id, run_id, task_id, parse_map_index(map_index))
    return _csv(request, await _entries(selection), f"{run_id}-{task_id}")


async def group_zip(request: Request, dag_id: str, run_id: str, group_id: str, map_index: str) -> StreamingResponse:
    """Return the images of a task group as a zip file."""
    selection = group_selection(dag_id, run_id, group_id, map_index)
    return _zip(request, await _entries(selection), f"{run_id}-{group_id}")


async def group_csv(request: Request, dag_id: str, run_id: str, group_id: str, map_index: str) -> StreamingResponse:
    """Return the facts of a task group's images as CSV."""
    selection = group_selection(dag_id, run_id, group_id, map_index)
    return _csv(request, await _entries(selection), f"{run_id}-{group_id}")


async def found_zip(request: Request, user: GetUserDep, which: SearchDep, keys: KeysDep) -> StreamingResponse:
    """Return the selected images as a zip file, or all that a search finds."""
    return _zip(request, await _found(user, which, keys), "flux")


async def found_csv(request: Request, user: GetUserDep, which: SearchDep, keys: KeysDep) -> StreamingResponse:
    """Return the facts of the selected images as CSV, or of all that a search finds."""
    return _csv(request, await _found(user, which, keys), "flux")


async def _found(user: GetUserDep, which: Search, keys: KeysDep) -> list[Entry]:
    if keys:
        await run_in_threadpool(check_access, keys, user)
        return [Entry(key, await find_image(key)) for key in keys]
    await run_in_threadpool(search.require_complete_index)
    found = await run_in_threadpool(search.find, user, which, _MAX_FOUND, 0)
    return [Entry(pages.key_of_indexed(one), one.image, one.prompt) for one in found.images]


async def _entries(selection: Selection) -> list[Entry]:
    found = await contents.load(selection)
    if not found.statuses:
        raise HTTPException(404, "Run or task not found.")
    return [Entry(pages.key_of(image, selection), image) for image in found.images]


def _zip(request: Request, entries: Sequence[Entry], name: str) -> StreamingResponse:
    if _zip_slots.locked():
        raise HTTPException(503, "The gallery is busy with other downloads. Try again in a minute.")
    body = _limited(downloads.zip_file(entries, pages.addresses_of(request)))
    return StreamingResponse(body, media_type="application/zip", headers=_attachment(f"{name}.zip"))


async def _limited(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    async with _zip_slots:
        async for part in parts:
            yield part


def _csv(request: Request, entries: Sequence[Entry], name: str) -> StreamingResponse:
    body = downloads.csv_file(entries, pages.addresses_of(request))
    return StreamingResponse(body, media_type="text/csv; charset=utf-8", headers=_attachment(f"{name}.csv"))


def _attachment(name: str) -> dict[str, str]:
    safe = re.sub(r"[^A-Za-z0-9._-]+", "_", name)[-100:].lstrip("._")
    return {"Content-Disposition": f'attachment; filename="{safe}"'}
