"""What a page shows of one image: a tile of the wall, and the facts in its panel."""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.client.catalogue.prices import format_cost, format_usd
from airflow_provider_flux.gallery.addresses import Addresses, ImageKey
from airflow_provider_flux.gallery.results import GalleryImage
from airflow_provider_flux.gallery.thumbnails import MAX_SIDE

_CREDENTIALS: dict[bool | None, str] = {True: "present, not verified", False: "none"}

_STATE_ICONS = {"waiting": "deferred", "moderated": "failed", "failed": "failed", "not submitted": "skipped"}


@dataclass(frozen=True, slots=True)
class Timestamp:
    """A moment, as a ``<time>`` element shows it."""

    iso: str
    text: str


@dataclass(frozen=True, slots=True)
class Tile:
    """One image, or one job whose image is not stored.

    :param id: Unique in the page, and the same on each refresh.
    :param key: Names the image in a form.
    :param image_url: The full image; None if it is not stored.
    :param recipe_url: Prompt and recipe; None if the receipt's location is unknown.
    :param prompt: The prompt, if it is known without reading the receipt.
    :param state: The image's state, as the search names it.
    :param state_icon: Airflow's state that looks like it.
    :param problem: Text in place of an image that is not stored.
    :param summary: Model, size and cost, as far as they are known.
    :param facts: Label and value; a value of None is not shown.
    :param width: Width of the thumbnail, in pixels.
    :param height: Height of the thumbnail, in pixels.
    :param position: Its number among the images of all pages, from 1; None if it is not stored.
    """

    id: str
    key: str
    image_url: str | None
    thumbnail_url: str
    recipe_url: str | None
    run_url: str
    prompt: str | None
    alt: str
    state: str
    state_icon: str
    problem: str
    summary: tuple[str, ...]
    facts: Mapping[str, Any]
    created_at: Timestamp
    width: int
    height: int
    position: int | None = None


def tile_of(
    image: GalleryImage, key: ImageKey, addresses: Addresses, position: int | None = None, prompt: str | None = None
) -> Tile:
    """Return what the page shows of an image.

    :param position: Its number among the images of all pages.
    :param prompt: The prompt, if it is known from elsewhere.
    """
    width, height, size = (image.numeric(name) for name in ("width", "height", "bytes"))
    pixels = f"{width:.0f} × {height:.0f}" if width and height else None  # noqa: RUF001 - the sign itself
    task = task_name(image.task_id, image.map_index)
    url, version = addresses.image(key), f"?v={image.sha256[:16]}" if image.sha256 else ""
    prompt = prompt or image.prompt
    thumbnail_width, thumbnail_height = _thumbnail_size(width, height)
    return Tile(
        id=f"image-{digest(str(key))}",
        key=str(key),
        image_url=url + version if image.uri else None,
        thumbnail_url=f"{url}/thumbnail{version}",
        recipe_url=f"{url}/recipe" if image.location else None,
        run_url=addresses.airflow_run(key.dag_id, key.run_id),
        prompt=prompt,
        alt=prompt or f"{image.model or 'FLUX'} image by {task}",
        state=image.state,
        state_icon=_STATE_ICONS.get(image.state, "none"),
        problem=f"{task}: {image.problem}" if image.problem else f"Submitted by {task}. The image is not stored.",
        summary=tuple(filter(None, (image.model, pixels, short_cost(image)))),
        facts={
            "Model": image.model,
            "Seed": image.seed,
            "Size": pixels,
            "File": None if size is None else f"{size / 1000:,.0f} kB",
            "Content credentials": _CREDENTIALS.get(image.content_credentials),
            "Cost": cost(image),
            "Task": task,
            "Billing": image.billing,
            "Retry": image.retry,
            "Job": image.job_id,
        },
        created_at=timestamp(image.created_at),
        width=thumbnail_width,
        height=thumbnail_height,
        position=position if image.uri else None,
    )


def cost(image: GalleryImage) -> str | None:
    """Return what the image cost this run, and who paid if it did not; None if that is unknown."""
    credits = image.numeric("cost")
    if not image.fields.get("reused"):
        return None if credits is None else format_cost(credits)
    paid_by = image.fields.get("paid_by")
    if not isinstance(paid_by, dict):
        return "0 (reused)"
    if not credits:
        return f"0 (reused from run {paid_by.get('run_id')})"
    return f"{format_cost(credits)}, paid by an earlier attempt"


def short_cost(image: GalleryImage) -> str | None:
    """Return the cost in a few characters: ``"2.5 cr ($0.025)"``."""
    credits = image.numeric("cost")
    if image.fields.get("reused") and not credits:
        return "reused"
    return None if credits is None else f"{credits:g} cr ({format_usd(credits)})"


def task_name(task_id: str, map_index: int) -> str:
    """Return a task instance's name, as Airflow's UI writes it."""
    return task_id if map_index < 0 else f"{task_id} [{map_index}]"


def timestamp(moment: datetime.datetime) -> Timestamp:
    """Return a moment as a page shows it: UTC, until a script rewrites it in Airflow's time zone."""
    utc = moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)
    return Timestamp(utc.isoformat(timespec="seconds"), f"{utc:%Y-%m-%d %H:%M:%S} UTC")


def digest(text: str) -> str:
    """Return a short text without special characters that stands for ``text`` in a page."""
    return hashlib.sha256(text.encode(errors="replace")).hexdigest()[:12]


def _thumbnail_size(width: float | None, height: float | None) -> tuple[int, int]:
    """Return the thumbnail's width and height, so that the page does not jump while thumbnails load."""
    if not width or not height or width < 0 or height < 0:
        return MAX_SIDE, MAX_SIDE
    scale = min(1, MAX_SIDE / max(width, height))
    return max(1, round(width * scale)), max(1, round(height * scale))
