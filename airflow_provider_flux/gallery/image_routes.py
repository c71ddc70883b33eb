"""The routes of one image: thumbnail, file and recipe; and what finds it in the results of its task."""

from __future__ import annotations

import json
import re
from typing import Any
from urllib.parse import quote

from fastapi import HTTPException, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse

from airflow_provider_flux.gallery import contents, pages, reading, thumbnails
from airflow_provider_flux.gallery.addresses import ImageKey
from airflow_provider_flux.gallery.queries import Selection
from airflow_provider_flux.gallery.results import GalleryImage, images_in
from airflow_provider_flux.gallery.security import IMAGE_POLICY
from airflow_provider_flux.receipts.recipe import without_webhook

ALL_INSTANCES = "{MAP_INDEX}"


async def image_link(request: Request, dag_id: str, run_id: str, task_id: str, map_index: str) -> RedirectResponse:
    """Redirect to the image if the task has stored exactly one, else to the task's page."""
    selection = Selection(dag_id, run_id, task_id, parse_map_index(map_index))
    results = await contents.load_results(selection)
    stored = [image for result in results for image in images_in(result) if image.uri]
    if len(stored) != 1:
        return RedirectResponse(f"../{quote(map_index)}")
    return RedirectResponse(pages.addresses_of(request).image(pages.key_of(stored[0], selection)))


async def thumbnail(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: str, number: int, v: str = ""
) -> Response:
    """Return the image's thumbnail."""
    image = await _find_stored_image(dag_id, run_id, task_id, map_index, number)
    headers = _headers(image, "small", v)
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    data = await reading.run_in_pool(thumbnails.thumbnail, image, reading.read_image)
    return Response(data, media_type=thumbnails.CONTENT_TYPE, headers=headers)


async def full_image(
    request: Request, dag_id: str, run_id: str, task_id: str, map_index: str, number: int, v: str = ""
) -> Response:
    """Return the stored image itself."""
    image = await _find_stored_image(dag_id, run_id, task_id, map_index, number)
    headers = _headers(image, "full", v)
    if request.headers.get("If-None-Match") == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    data, image_format = await reading.run_in_pool(reading.read_image_and_format, image)
    name = re.sub(r"[^A-Za-z0-9._-]", "_", f"{task_id}-{image.job_id or number}.{image_format}")
    headers["Content-Disposition"] = f'inline; filename="{name}"'
    return Response(data, media_type=f"image/{image_format}", headers=headers)


async def recipe(dag_id: str, run_id: str, task_id: str, map_index: str, number: int) -> JSONResponse:
    """Return the image's model and parameters, as its receipt has them."""
    image = await find_image(_key(dag_id, run_id, task_id, map_index, number))
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


async def find_image(key: ImageKey) -> GalleryImage:
    """Return the image, stored or not, with this number in the task instance's result.

    :raises HTTPException: if there is none.
    """
    selection = Selection(key.dag_id, key.run_id, key.task_id, key.map_index)
    image = await contents.find_image(selection, key.number)
    if image is not None:
        return image
    raise HTTPException(404, "The task's result does not contain this image.")


def parse_map_index(text: str) -> int | None:
    """Return a map index; None for the placeholder that Airflow leaves in the link of a task that is not mapped."""
    if text == ALL_INSTANCES:
        return None
    if not re.fullmatch(r"-1|\d{1,9}", text):
        raise HTTPException(404, "Run or task not found.")
    return int(text)


def group_selection(dag_id: str, run_id: str, group_id: str, map_index: str) -> Selection:
    """Return the selection of a task group, or of one of its mapped instances."""
    return Selection(dag_id, run_id, map_index=parse_map_index(map_index), group_id=group_id)


async def _find_stored_image(dag_id: str, run_id: str, task_id: str, map_index: str, number: int) -> GalleryImage:
    image = await find_image(_key(dag_id, run_id, task_id, map_index, number))
    if image.uri is None:
        raise HTTPException(404, "The image is not stored.")
    return image


def _key(dag_id: str, run_id: str, task_id: str, map_index: str, number: int) -> ImageKey:
    index = parse_map_index(map_index)
    if index is None:
        raise HTTPException(404, "The path needs the map index of one task instance.")
    return ImageKey(dag_id, run_id, task_id, index, number)


def _headers(image: GalleryImage, form: str, version: str) -> dict[str, str]:
    is_versioned = version and (image.sha256 or "").startswith(version)
    return {
        "ETag": f'"{image.sha256}-{form}"',
        "Cache-Control": "private, max-age=31536000, immutable" if is_versioned else "private, no-cache",
        "Content-Security-Policy": IMAGE_POLICY,
    }
