"""Images as a zip file, and their facts as CSV, written piece by piece: neither is ever in memory as a whole."""

from __future__ import annotations

import asyncio
import csv
import datetime
import io
import re
import time
import zipfile
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from airflow_provider_flux.client.catalogue.prices import to_usd
from airflow_provider_flux.gallery import reading
from airflow_provider_flux.gallery.addresses import Addresses, ImageKey
from airflow_provider_flux.gallery.results import GalleryImage

MAX_IMAGES = 5_000
"""Images in one zip file."""
_COLUMNS = (
    *("dag_id", "run_id", "task_id", "map_index", "number", "submitted_at", "prompt", "model", "seed", "width"),
    *("height", "bytes", "cost_credits", "cost_usd", "reused", "paid_by_run", "error", "job_id", "sha256", "uri"),
    "page",
)
_ROWS_AT_ONCE = 16
_PROMPT_SECONDS = 60.0
"""How long the prompts of one CSV file may take to read from receipts; those that are left stay empty."""
# A spreadsheet takes a text that begins like this for a formula.
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


@dataclass(frozen=True, slots=True)
class Entry:
    """One image of a download.

    :param prompt: The prompt, if it is known without reading the receipt.
    """

    key: ImageKey
    image: GalleryImage
    prompt: str | None = None


async def zip_file(entries: Sequence[Entry], addresses: Addresses) -> AsyncIterator[bytes]:
    """Yield a zip file of the stored images, with a CSV file of all facts and a list of what is missing."""
    buffer = _Buffer()
    missing = [f"{entry.key}: {entry.image.problem or 'not stored'}" for entry in entries if entry.image.uri is None]
    stored = [entry for entry in entries if entry.image.uri is not None]
    if len(stored) > MAX_IMAGES:
        missing.append(f"{len(stored) - MAX_IMAGES} images: a zip file contains the first {MAX_IMAGES}")
    # Images are compressed already.
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for number, entry in enumerate(stored[:MAX_IMAGES], 1):
            try:
                data, image_format = await reading.run_in_pool(reading.read_image_and_format, entry.image)
            except reading.UnreadableError as error:
                missing.append(f"{entry.key}: {error}")
                continue
            archive.writestr(_zip_info(file_name(number, entry, image_format)), data)
            del data
            yield buffer.take()
        table = b"".join([rows async for rows in csv_file(entries, addresses)])
        archive.writestr(_zip_info("images.csv"), table)
        if missing:
            archive.writestr(_zip_info("missing.txt"), "".join(f"{line}\n" for line in missing))
    yield buffer.take()


def file_name(number: int, entry: Entry, image_format: str) -> str:
    """Return the name of an image in the zip file: unique by its number, and safe on every system."""
    stem = (entry.image.uri or "").rpartition("/")[2].rpartition(".")[0]
    safe = re.sub(r"[^A-Za-z0-9_-]+", "_", stem).strip("_")[:80]
    return f"{number:04d}-{safe or 'image'}.{image_format}"


async def csv_file(entries: Iterable[Entry], addresses: Addresses) -> AsyncIterator[bytes]:
    """Yield the facts of the images as CSV, in UTF-8 with the mark that spreadsheets look for."""
    yield _csv_lines([_COLUMNS]).encode("utf-8-sig")
    deadline = time.monotonic() + _PROMPT_SECONDS
    rest = iter(entries)
    while some := list(islice(rest, _ROWS_AT_ONCE)):
        prompts = await asyncio.gather(*(_prompt(entry, deadline) for entry in some))
        rows = (_row(entry, prompt, addresses) for entry, prompt in zip(some, prompts, strict=True))
        yield _csv_lines(rows).encode(errors="replace")


async def _prompt(entry: Entry, deadline: float) -> str | None:
    prompt = entry.prompt or entry.image.fields.get("prompt")
    if isinstance(prompt, str):
        return prompt
    if time.monotonic() > deadline:
        return None
    return await read_prompt(entry.image)


async def read_prompt(image: GalleryImage) -> str | None:
    """Return the prompt in the image's receipt; None if there is none, or it cannot be read."""
    try:
        receipt = await reading.run_in_pool(reading.read_image_receipt, image)
    except reading.UnreadableError:
        return None
    prompt = (receipt.parameters or {}).get("prompt") if receipt else None
    return prompt if isinstance(prompt, str) else None


def _row(entry: Entry, prompt: str | None, addresses: Addresses) -> list[Any]:
    image, key = entry.image, entry.key
    cost, paid_by = image.numeric("cost"), image.fields.get("paid_by")
    return [
        *(key.dag_id, key.run_id, key.task_id, key.map_index, key.number),
        *(_moment(image), prompt, image.model, image.seed),
        *(image.numeric(name) for name in ("width", "height", "bytes")),
        *(cost, None if cost is None else to_usd(cost)),
        *(bool(image.fields.get("reused")), paid_by.get("run_id") if isinstance(paid_by, dict) else None),
        *(image.problem if image.uri is None else None, image.job_id, image.sha256, image.uri),
        addresses.image(key) if image.uri else None,
    ]


def _moment(image: GalleryImage) -> str:
    return image.created_at.isoformat(timespec="seconds")


def _csv_lines(rows: Iterable[Iterable[Any]]) -> str:
    file = io.StringIO()
    csv.writer(file).writerows([_cell(value) for value in row] for row in rows)
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(_FORMULA):
        return f"'{value}"
    return value


def _zip_info(name: str) -> zipfile.ZipInfo:
    now = datetime.datetime.now(datetime.UTC)
    return zipfile.ZipInfo(name, now.timetuple()[:6])


class _Buffer:
    """What a zip file is written to: a file that cannot be rewound, and gives away what it has."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes, /) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def flush(self) -> None:
        """Do nothing: what is written is taken by :meth:`take`."""

    def close(self) -> None:
        """Do nothing: there is no file."""

    def take(self) -> bytes:
        """Return what was written since the last call."""
        data = b"".join(self._parts)
        self._parts.clear()
        return data
