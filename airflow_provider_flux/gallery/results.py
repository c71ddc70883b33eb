"""The images in a run's task results. Reads neither the database nor a store.

A result may come from any operator, in any shape and version, so every field is checked where it is read.
"""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from airflow_provider_flux.client.jobs import unix_time

_MAX_NUMBER = 2**53
"""Largest number that is shown: a plausible value, and exact as a float."""
_PAYMENT_FIELDS = ("cost", "cost_usd", "reused", "paid_by")
_FAILURE_FIELDS = ("state", "error", "class", "billing", "hint", "retry")
STATES = ("stored", "waiting", "not stored", "moderated", "failed", "not submitted")
"""What :attr:`GalleryImage.state` can be."""
# "stored" is left out: an image without a verifiable file is not.
_MANIFEST_STATES = {"moderated": "moderated", "failed": "failed", "not_submitted": "not submitted"}


@dataclass(frozen=True, slots=True)
class TaskResult:
    """What one task instance returned.

    :param value: The XCom's JSON, in any shape; None if it cannot be read.
    :param returned_at: When the XCom was written.
    :param uses_flux: Whether the task runs one of this provider's operators.
    :param key: The XCom's key.
    """

    task_id: str
    map_index: int
    value: Any
    returned_at: datetime.datetime
    uses_flux: bool = True
    key: str = "return_value"


@dataclass(frozen=True, slots=True)
class ManifestReference:
    """Where a batch's manifest is, as the batch's result says.

    :param sha256: The manifest's hash, in hex; None if the result has none.
    """

    uri: str
    sha256: str | None


@dataclass(frozen=True, slots=True)
class ManifestLine:
    """One request of a batch, as its manifest describes it.

    :param location: URI of the file that the request's image is, or was to be, stored in; None if unknown.
    """

    fields: Mapping[str, Any]
    location: str | None


@dataclass(frozen=True, slots=True)
class GalleryImage:
    """One image, or one job whose image is not stored, as a task's result describes it.

    :param number: Its position in that result: 0, or the index in a list or batch.
    :param fields: The result's fields, unchecked.
    :param returned_at: When the task returned it.
    :param planned_uri: Where a batch stores or was to store it.
    """

    task_id: str
    map_index: int
    number: int
    fields: Mapping[str, Any]
    returned_at: datetime.datetime
    planned_uri: str | None = None

    @property
    def job_id(self) -> str | None:
        """The FLUX job; None if a batch did not submit one."""
        return self._text("id")

    @property
    def uri(self) -> str | None:
        """URI of the stored image; None if it is not stored, or cannot be verified for lack of a hash."""
        return self._text("uri") if self.sha256 else None

    @property
    def sha256(self) -> str | None:
        """SHA-256 of the stored file, in hex."""
        return _hash(self.fields.get("sha256"))

    @property
    def location(self) -> str | None:
        """URI that the image is, or was to be, stored at, with its receipt as a sidecar; None if unknown."""
        return self.uri or self.planned_uri

    @property
    def seed(self) -> int | None:
        """The seed, exact even above 2**53; None if the result has none."""
        value = self.fields.get("seed")
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        number = self.numeric("seed")
        return int(number) if number is not None and number == int(number) else None

    @property
    def model(self) -> str | None:
        """The model that generated it."""
        return self._text("model")

    @property
    def prompt(self) -> str | None:
        """The prompt, which a batch's manifest contains; None if only the receipt has it."""
        return self._text("prompt")

    @property
    def state(self) -> str:
        """``stored``, ``waiting`` (submitted), ``not stored`` (ready), ``moderated``, ``failed``, ``not submitted``."""
        if self.uri is not None:
            return "stored"
        if (state := _MANIFEST_STATES.get(str(self.fields.get("state")))) is not None:
            return state
        if self._text("error"):
            return "failed"
        return "waiting" if self.fields.get("status") in (None, "Pending") else "not stored"

    @property
    def created_at(self) -> datetime.datetime:
        """When its job was submitted, as UTC; if that is unknown, when the task returned it."""
        submitted = unix_time(self.fields.get("submitted_at"))
        with contextlib.suppress(ValueError, OverflowError, OSError):
            if submitted:
                return datetime.datetime.fromtimestamp(submitted, datetime.UTC)
        moment = self.returned_at
        return moment.replace(tzinfo=datetime.UTC) if moment.tzinfo is None else moment.astimezone(datetime.UTC)

    @property
    def content_credentials(self) -> bool | None:
        """Whether content credentials (C2PA) are in the stored file; None if the result does not say."""
        value = self.fields.get("content_credentials")
        return value if isinstance(value, bool) and self.uri else None

    @property
    def problem(self) -> str | None:
        """Why there is no image, as the task or the batch states it; None if neither does."""
        return self._text("error") or self._text("state")

    @property
    def billing(self) -> str | None:
        """A sentence that says what was billed for an image that is missing; None if the task states none."""
        return self._text("billing")

    @property
    def hint(self) -> str | None:
        """A sentence that says what the reader can do about it; None if the task states none."""
        return self._text("hint")

    @property
    def retry(self) -> str | None:
        """A sentence that says what a retry of the failed task does; None if the task states none."""
        return self._text("retry")

    def numeric(self, name: str) -> float | None:
        """Return a field that should be a number; None if it is not."""
        value = self.fields.get(name)
        if not isinstance(value, int | float) or isinstance(value, bool):
            return None
        return value if abs(value) <= _MAX_NUMBER else None

    def _text(self, name: str) -> str | None:
        value = self.fields.get(name)
        # JSON may contain lone surrogates, which no page can be encoded with.
        return value.encode(errors="replace").decode() if isinstance(value, str) and value else None


def _hash(value: Any) -> str | None:
    is_hash = isinstance(value, str) and len(value) == 64 and set(value) <= set("0123456789abcdef")
    return value if is_hash else None


def read_result(text: str | None) -> Any:
    """Return a task's return value from the JSON in Airflow's database; None if it is not valid JSON.

    Serialized objects stay as Airflow wrote them: restoring one would import a class that the task names.
    """
    try:
        value = json.loads(text or "null")
        if isinstance(value, str) and value[:1] in ("{", "[", '"'):
            # Values that a trigger or the REST API wrote are encoded twice.
            value = json.loads(value)
    except (ValueError, RecursionError):
        return None
    return read_value(value)


def read_value(value: Any) -> Any:
    """Return a value as the gallery reads it: a serialized tuple as its items."""
    is_tuple = isinstance(value, dict) and value.get("__classname__") == "builtins.tuple"
    return value.get("__data__") if is_tuple else value


def manifest_reference(value: Any) -> ManifestReference | None:
    """Return the reference to the manifest in a batch's result; None if ``value`` is not a batch's result."""
    if isinstance(value, Mapping) and isinstance(value.get("manifest"), str) and "counts" in value:
        return ManifestReference(value["manifest"], _hash(value.get("manifest_sha256")))
    return None


def read_manifest(data: bytes, uri: str) -> dict[int, ManifestLine]:
    """Return the lines of a manifest (JSON Lines) by index; the last line of an index wins.

    :param uri: Where the manifest is; the batch's images are in the same folder.
    :raises ValueError: if it is not a manifest.
    """
    folder = uri.rpartition("/")[0]
    lines: dict[int, ManifestLine] = {}
    for text in data.splitlines():
        if not text.strip():
            continue
        fields = json.loads(text)
        if not isinstance(fields, dict) or type(fields.get("index")) is not int or fields["index"] < 0:
            raise ValueError("a line has no valid index")
        lines[fields["index"]] = _manifest_line(fields, folder)
    return lines


def _manifest_line(fields: Mapping[str, Any], folder: str) -> ManifestLine:
    name, uri = fields.get("file_name"), fields.get("uri")
    is_name = isinstance(name, str) and name not in ("", ".", "..") and "/" not in name
    if isinstance(uri, str) and uri.rpartition("/")[0] != folder:
        fields = {**fields, "uri": None, "error": "The manifest names a file outside its folder."}
    return ManifestLine(fields, f"{folder}/{name}" if is_name else None)


def images_in(result: TaskResult, lines: Mapping[int, ManifestLine] | None = None) -> Iterator[GalleryImage]:
    """Yield the images that one task instance returned.

    :param lines: The manifest's lines by index, if the result is a batch's.
    """
    if lines is None:
        items = result.value if isinstance(result.value, list) else [result.value]
        lines = {number: ManifestLine(item, None) for number, item in enumerate(items) if _describes_image(item)}
    for number, line in lines.items():
        yield GalleryImage(
            result.task_id, result.map_index, number, line.fields, result.returned_at, planned_uri=line.location
        )


def _describes_image(value: Any) -> bool:
    if not isinstance(value, Mapping) or not isinstance(value.get("id"), str):
        return False
    is_stored = all(isinstance(value.get(name), str) for name in ("uri", "sha256"))
    return is_stored or all(isinstance(value.get(name), str) for name in ("model", "status"))


def failed_image(failure: TaskResult) -> GalleryImage | None:
    """Return the image that a failed task is missing; None if ``failure`` is not what a FLUX task says of it.

    :param failure: What the task wrote when it failed (:func:`failures.failure_record`).
    """
    value = failure.value
    if not isinstance(value, Mapping) or not isinstance(value.get("message"), str):
        return None
    fields = {name: value.get(name) for name in ("model", "cost", "billing", "hint", "retry")}
    state = "moderated" if value.get("state") == "moderated" else "failed"
    fields |= {"id": value.get("job_id"), "state": state, "error": value["message"], "class": value.get("error")}
    uri = value.get("uri")
    planned_uri = uri if isinstance(uri, str) and uri else None
    return GalleryImage(failure.task_id, failure.map_index, 0, fields, failure.returned_at, planned_uri)


def deduplicate_jobs(images: Iterable[GalleryImage]) -> list[GalleryImage]:
    """Return the images in the order of their submits, each job once, where it was stored last.

    A copy, such as the one that FluxToS3Operator makes, has the job id of its original.
    """
    images = list(images)
    first_returns: dict[str, datetime.datetime] = {}
    for image in images:
        first_returns[image.task_id] = min(image.returned_at, first_returns.get(image.task_id, image.returned_at))
    images.sort(key=lambda image: (first_returns[image.task_id], image.task_id, image.map_index, image.number))
    jobs: dict[Any, GalleryImage] = {}
    for image in images:
        key = image.job_id or (image.task_id, image.map_index, image.number)
        jobs[key] = _merge(jobs[key], image) if key in jobs else image
    return list(jobs.values())


def _merge(one: GalleryImage, other: GalleryImage) -> GalleryImage:
    old, new = sorted((one, other), key=lambda image: (image.uri is not None, image.returned_at))
    known = {name: value for name, value in new.fields.items() if value is not None}
    if new.fields.get("reused") and not old.fields.get("reused") and old.numeric("cost") is not None:
        # One task of the run paid for what the other one reuses.
        known = {name: value for name, value in known.items() if name not in _PAYMENT_FIELDS}
    # A task that failed to copy an image says nothing about the image that is stored.
    earlier = {name: value for name, value in old.fields.items() if new.uri is None or name not in _FAILURE_FIELDS}
    return replace(new, fields={**earlier, **known}, planned_uri=new.planned_uri or old.planned_uri)
