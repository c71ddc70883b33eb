"""Which images a run made, told from what its tasks returned. Touches neither database nor store."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

_LARGEST = 2**53
"""Up to here a number is one that a result may tell in earnest, and exact as a float."""


@dataclass(frozen=True, slots=True)
class Returned:
    """What one task instance returned.

    :param value: The XCom's JSON, whatever it is; None if it cannot be read.
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
        return _hash(self.told.get("sha256"))

    @property
    def place(self) -> str | None:
        """Where the image lies or was to lie, with its receipt beside it; None if that is not known."""
        return self.uri or self._text("place")

    def number_of(self, name: str) -> float | None:
        """Return a field that should be a number; None if it is not."""
        value = self.told.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        return value if abs(value) <= _LARGEST else None

    @property
    def seed(self) -> int | None:
        """The seed, exact however large it is; None if the result tells of none."""
        value = self.told.get("seed")
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        number = self.number_of("seed")
        return int(number) if number is not None and number == int(number) else None

    def _text(self, name: str) -> str | None:
        value = self.told.get(name)
        # JSON may hold halves of characters, which no page can be written with.
        return value.encode(errors="replace").decode() if isinstance(value, str) and value else None

    @property
    def model(self) -> str | None:
        """The model that made it."""
        return self._text("model")

    @property
    def problem(self) -> str | None:
        """Why there is no image, in the batch's words; None if it does not say."""
        return self._text("error") or self._text("state")


def _hash(value: Any) -> str | None:
    is_hash = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    return value if is_hash else None


def read_result(text: str | None) -> Any:
    """Return what a task returned, from the JSON that Airflow keeps of it; None if it cannot be read.

    What is no plain JSON stays as Airflow has written it down: to restore it would be to import what a task names.
    """
    try:
        value = json.loads(text or "null")
        if isinstance(value, str):
            # What a trigger has returned, or the REST API was told, is encoded twice.
            value = json.loads(value)
    except (ValueError, RecursionError):
        return None
    is_tuple = isinstance(value, dict) and value.get("__classname__") == "builtins.tuple"
    return value.get("__data__") if is_tuple else value


def manifest_of(value: Any) -> tuple[str, str | None] | None:
    """Return where a batch's manifest lies, and what it hashes to, if ``value`` is what a batch returns."""
    if isinstance(value, Mapping) and isinstance(value.get("manifest"), str) and "counts" in value:
        return value["manifest"], _hash(value.get("manifest_sha256"))
    return None


def read_manifest(data: bytes, uri: str) -> dict[int, dict[str, Any]]:
    """Return the lines of a manifest (JSON Lines) by their index; the last one about an index counts.

    :param uri: Where it lies; the images of its lines lie beside it.
    :raises ValueError: if it is none.
    """
    folder = uri.rpartition("/")[0]
    lines: dict[int, dict[str, Any]] = {}
    for text in data.splitlines():
        if not text.strip():
            continue
        line = json.loads(text)
        if not isinstance(line, dict) or type(line.get("index")) is not int or line["index"] < 0:
            raise ValueError("a line names no index")
        lines[line["index"]] = {**line, **_whereabouts(line, folder)}
    return lines


def _whereabouts(line: Mapping[str, Any], folder: str) -> dict[str, Any]:
    name, uri = line.get("file_name"), line.get("uri")
    is_name = isinstance(name, str) and name not in ("", ".", "..") and "/" not in name
    told: dict[str, Any] = {"place": f"{folder}/{name}" if is_name else None}
    if isinstance(uri, str) and uri.rpartition("/")[0] != folder:
        told |= {"uri": None, "error": "The manifest names a place outside of its folder."}
    return told


def images_in(returned: Returned, lines: Mapping[int, Mapping[str, Any]] | None = None) -> Iterator[Image]:
    """Yield what one task instance made; nothing if its result tells of no image.

    :param lines: The manifest's lines by index, if the result is a batch's.
    """
    told = lines
    if told is None:
        value = returned.value
        items = value if isinstance(value, list) else [value]
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
