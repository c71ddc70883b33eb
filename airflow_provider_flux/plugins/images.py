"""Which images a run made, told from what its tasks returned. Touches neither database nor store."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any


@dataclass(frozen=True, slots=True)
class Returned:
    """What one task instance returned.

    :param value: The XCom, whatever it is.
    :param at: When it was returned.
    """

    task_id: str
    map_index: int
    value: Any
    at: datetime.datetime


@dataclass(frozen=True, slots=True)
class Image:
    """One image, or one job whose image is not stored, as a task's result tells of it.

    :param number: Its place in that result: 0, or the index in the batch.
    :param told: What the result tells.
    :param at: When the task returned it.
    """

    task_id: str
    map_index: int
    number: int
    told: Mapping[str, Any]
    at: datetime.datetime

    @property
    def job_id(self) -> str | None:
        """The FLUX job; None if a batch never submitted it."""
        return self._text("id")

    @property
    def uri(self) -> str | None:
        """Where the image lies; None if it is not stored."""
        return self._text("uri") if self.sha256 else None

    @property
    def sha256(self) -> str | None:
        """What the stored file hashes to, in hex."""
        text = self._text("sha256") or ""
        return text if len(text) == 64 and set(text) <= set("0123456789abcdef") else None

    def number_of(self, name: str) -> float | None:
        """Return a field that should be a number; None if it is not."""
        value = self.told.get(name)
        return value if isinstance(value, int | float) and not isinstance(value, bool) else None

    def _text(self, name: str) -> str | None:
        value = self.told.get(name)
        return value if isinstance(value, str) and value else None

    @property
    def model(self) -> str | None:
        """The model that made it."""
        return self._text("model")

    @property
    def problem(self) -> str | None:
        """Why there is no image, in the batch's words; None if it does not say."""
        return self._text("error") or self._text("state")


def manifest_of(value: Any) -> str | None:
    """Return where a batch's manifest lies, if ``value`` is what a batch returns."""
    if isinstance(value, Mapping) and isinstance(value.get("manifest"), str) and "counts" in value:
        return value["manifest"] or None
    return None


def read_manifest(data: bytes) -> dict[int, dict[str, Any]]:
    """Return the lines of a manifest (JSON Lines) by their index; the last one about an index counts.

    :raises ValueError: if it is none.
    """
    lines: dict[int, dict[str, Any]] = {}
    for text in data.splitlines():
        if not text.strip():
            continue
        line = json.loads(text)
        if not isinstance(line, dict) or type(line.get("index")) is not int or line["index"] < 0:
            raise ValueError("a line names no index")
        lines[line["index"]] = line
    return lines


def images_in(returned: Returned, lines: Mapping[int, Mapping[str, Any]] | None = None) -> Iterator[Image]:
    """Yield what one task instance made; nothing if its result tells of no image.

    :param lines: The manifest's lines by index, if the result is a batch's.
    """
    told = lines
    if told is None:
        value = returned.value
        items = value if isinstance(value, list | tuple) else [value]
        told = {number: item for number, item in enumerate(items) if _tells_of_an_image(item)}
    for number, item in told.items():
        yield Image(returned.task_id, returned.map_index, number, item, returned.at)


def _tells_of_an_image(value: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("id"), str):
        return False
    is_stored = all(isinstance(value.get(name), str) for name in ("uri", "sha256"))
    return is_stored or all(isinstance(value.get(name), str) for name in ("model", "status"))


def one_for_each_job(images: Iterable[Image]) -> list[Image]:
    """Return the images in the order they were asked for, each job once, where it was stored last.

    A copy, such as the one that FluxToS3Operator makes, tells of the same job as the original.
    """
    images = list(images)
    begun: dict[str, datetime.datetime] = {}
    for image in images:
        begun[image.task_id] = min(image.at, begun.get(image.task_id, image.at))
    images.sort(key=lambda image: (begun[image.task_id], image.task_id, image.map_index, image.number))
    jobs: dict[Any, Image] = {}
    for image in images:
        key = image.job_id or (image.task_id, image.map_index, image.number)
        jobs[key] = _merge(jobs[key], image) if key in jobs else image
    return list(jobs.values())


def _merge(one: Image, other: Image) -> Image:
    old, new = sorted((one, other), key=lambda image: (image.uri is not None, image.at))
    known = {name: value for name, value in new.told.items() if value is not None}
    return replace(new, told={**old.told, **known})
