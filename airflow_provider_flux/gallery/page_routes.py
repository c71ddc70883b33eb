"""The routes of pages: all images, those of a run or a task, and some side by side."""

from __future__ import annotations

import asyncio
from typing import Annotated

from airflow.api_fastapi.core_api.security import GetUserDep
from fastapi import HTTPException, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import HTMLResponse

from airflow_provider_flux.gallery import browsing, contents, downloads, index, pages, queries, search
from airflow_provider_flux.gallery.image_routes import ALL_INSTANCES, find_image, group_selection, parse_map_index
from airflow_provider_flux.gallery.queries import Selection
from airflow_provider_flux.gallery.search import SearchDep
from airflow_provider_flux.gallery.selected import KeysDep, check_access

Page = Annotated[int, Query(ge=1, le=1_000_000)]
_MOST_COMPARED = 4


async def browse(request: Request, user: GetUserDep, which: SearchDep, page: Page = 1) -> HTMLResponse:
    """Show the images of all DAGs that the user may read, newest first."""

    def respond() -> HTMLResponse:
        dag_ids = search.readable(user)
        first = (page - 1) * pages.PAGE_SIZE
        found = index.search(dag_ids, which.to_filter(), pages.PAGE_SIZE, first)
        states = queries.run_states({(image.dag_id, image.run_id) for image in found.images})
        return browsing.browse_page(request, which, found, states, dag_ids, index.models(dag_ids), page)

    return await run_in_threadpool(respond)


async def show_run(request: Request, dag_id: str, run_id: str, page: Page = 1) -> HTMLResponse:
    """Show the images of a run."""
    return await _show_images(request, Selection(dag_id, run_id), page)


async def show_task(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: str, page: Page = 1
) -> HTMLResponse:
    """Show the images of a task: of all its mapped instances, or of one."""
    return await _show_images(request, Selection(dag_id, run_id, task_id, parse_map_index(map_index)), page)


async def show_group(
    request: Request, dag_id: str, run_id: str, group_id: str, map_index: str = ALL_INSTANCES, page: Page = 1
) -> HTMLResponse:
    """Show the images of a task group: of all its mapped instances, or of one."""
    return await _show_images(request, group_selection(dag_id, run_id, group_id, map_index), page)


async def compare(request: Request, user: GetUserDep, keys: KeysDep) -> HTMLResponse:
    """Show two to four images side by side."""
    if not 2 <= len(keys) <= _MOST_COMPARED:
        raise HTTPException(422, "Select two to four images to compare them.")
    await run_in_threadpool(check_access, keys, user)
    images = [await find_image(key) for key in keys]
    prompts = await asyncio.gather(*map(downloads.read_prompt, images))
    return pages.comparison_page(request, list(zip(keys, images, prompts, strict=True)))


async def _show_images(request: Request, selection: Selection, page: int) -> HTMLResponse:
    found = await contents.load(selection)
    if not found.statuses:
        raise HTTPException(404, "Run or task not found.")
    return await run_in_threadpool(pages.images_page, request, selection, found, page=page)
