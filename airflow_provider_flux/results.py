"""What a task returns of its image (ImageResult), and what a trigger reports to its task (WaitEvent); to and from JSON.

Both are flat JSON, because they are what users and Airflow see: an XCom, and the payload of a trigger's event. Neither
contains a signed URL, a prompt or a key.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_flux.client.catalogue.prices import to_usd
from airflow_provider_flux.client.jobs import Job, iso_time, job_from, unix_time
from airflow_provider_flux.exceptions import FluxError, error_from_dict
from airflow_provider_flux.identity import TaskIdentity

if TYPE_CHECKING:
    from airflow_provider_flux.client.responses import Result
    from airflow_provider_flux.images.verification import Image
    from airflow_provider_flux.storage.base import ImageStore

Number = int | float


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageResult:
    """The image of one job: what a task returns, and what a receipt and a manifest contain.

    :param id: The job's id at the API.
    :param model: The model; None if only the id is known.
    :param status: The API's last status of the job; ``"Pending"`` if the task did not wait for it.
    :param polling_url: The job's own URL, for a gateway that has one.
    :param submitted_at: Time of the submit, as UTC in ISO 8601.
    :param cost: Credits that the task's run pays; None if unknown.
    :param seed: The seed that the image was generated with.
    :param duration: Generation time in seconds, as the API reports it.
    :param uri: Where the image is stored; None if it is not. So are the fields below.
    :param format: ``"png"``, ``"jpeg"`` or ``"webp"``, as found in the file.
    :param width: Width in pixels.
    :param height: Height in pixels.
    :param bytes: Size of the file in bytes.
    :param sha256: Hash of the file, in hex.
    :param content_type: MIME type.
    :param content_credentials: Whether content credentials (C2PA) are in the file, which are not verified; None if
        unknown, as in a result of an earlier version.
    :param reused: Whether the image or its job existed before this attempt.
    :param paid_by: The task that paid for a reused image.
    :param moderated: The ids of earlier jobs of the task for this image that output moderation withheld.
    """

    id: str
    model: str | None = None
    polling_url: str | None = None
    cost: Number | None = None
    submitted_at: str | None = None
    status: str = "Pending"
    seed: int | None = None
    duration: Number | None = None
    uri: str | None = None
    format: str | None = None
    width: int | None = None
    height: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    content_type: str | None = None
    content_credentials: bool | None = None
    reused: bool = False
    paid_by: TaskIdentity | None = None
    moderated: tuple[str, ...] = ()

    @classmethod
    def of_job(cls, job: Job) -> ImageResult:
        """Return the result of a task that does not wait for its job."""
        return cls(
            id=job.id,
            model=job.model,
            polling_url=job.polling_url,
            cost=job.cost,
            submitted_at=iso_time(job.submitted_at),
        )

    @classmethod
    def of_result(cls, result: Result) -> ImageResult:
        """Return the result of a finished job whose image is not stored (yet)."""
        return replace(
            cls.of_job(result.job),
            status=result.status,
            seed=result.seed,
            cost=result.cost if result.cost is not None else result.job.cost,
            duration=result.duration,
        )

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ImageResult:
        """Return the result that ``data`` describes; a field of the wrong type counts as missing.

        :raises ValueError: if ``data`` names no job.
        """
        job = job_from(data)
        known = {name: value for name, value in data.items() if name in _TYPES and _is_a(value, _TYPES[name])}
        submitted_at = data.get("submitted_at")
        return cls(
            **{
                **known,
                "id": job.id,
                "cost": job.cost,
                "submitted_at": submitted_at if isinstance(submitted_at, str) else iso_time(unix_time(submitted_at)),
                "paid_by": TaskIdentity.from_dict(data.get("paid_by")),
            }
        )

    @property
    def job(self) -> Job:
        """The job that generates the image."""
        return Job(self.id, self.model, self.polling_url, self.cost, unix_time(self.submitted_at))

    @property
    def cost_usd(self) -> float | None:
        """What the task's run pays, in US dollars at the price of a credit; None if unknown."""
        return None if self.cost is None else to_usd(self.cost)

    @property
    def is_stored(self) -> bool:
        """Whether the image is stored, and can be verified."""
        return self.uri is not None and self.sha256 is not None and self.bytes is not None

    def is_in(self, store: ImageStore) -> bool:
        """Return whether this image is stored in ``store`` unchanged."""
        return self.bytes is not None and self.sha256 is not None and store.matches(self.bytes, self.sha256)

    def stored_at(self, uri: str, image: Image) -> ImageResult:
        """Return the result of the image that is stored as a verified file at ``uri``."""
        return replace(self, uri=uri, content_type=image.content_type, **image.to_dict())

    def as_reused(self, run: TaskIdentity, paid_by: TaskIdentity | None) -> ImageResult:
        """Return the result of an image that existed before this attempt of ``run``.

        :param paid_by: The other task that paid for it: ``run`` itself then pays nothing. None: ``run`` paid.
        """
        if paid_by is None:
            return replace(self, reused=True, paid_by=run)
        return replace(self, cost=0, reused=True, paid_by=paid_by)

    def with_unused(self, cost: float, moderated: Sequence[str]) -> ImageResult:
        """Return the result of an image for which further jobs may be billed that are not used.

        :param cost: Credits of those jobs.
        :param moderated: The ids of those that output moderation withheld.
        """
        return replace(self, cost=(self.cost or 0) + cost if cost else self.cost, moderated=tuple(moderated))

    def to_dict(self) -> dict[str, Any]:
        """Return flat JSON; a field that has no meaning yet (of an image that is not stored, say) is left out."""
        names = ["id", "model", *(["polling_url"] if self.polling_url else []), "cost", "cost_usd"]
        names += ["submitted_at", "status"]
        names += ["seed", "duration"] if self.status != "Pending" or self.uri is not None else []
        names += _STORED_FIELDS if self.uri is not None else []
        data = {name: getattr(self, name) for name in names}
        if self.uri is not None and self.content_credentials is not None:
            data["content_credentials"] = self.content_credentials
        if self.reused:
            data |= {"reused": True, "paid_by": self.paid_by and self.paid_by.to_dict()}
        if self.moderated:
            data["moderated"] = list(self.moderated)
        return data


_STORED_FIELDS = ("uri", "format", "width", "height", "bytes", "sha256", "content_type")
_TYPES: dict[str, type | tuple[type, ...]] = {
    **dict.fromkeys(("model", "polling_url", "status", "uri", "format", "sha256", "content_type"), str),
    **dict.fromkeys(("seed", "width", "height", "bytes"), int),
    "duration": (int, float),
    "reused": bool,
    "content_credentials": bool,
}


def _is_a(value: Any, kind: type | tuple[type, ...]) -> bool:
    return isinstance(value, kind) and (kind is bool or not isinstance(value, bool))


Outcome = Literal["stored", "ready", "failed", "handed back"]
STORED: Outcome = "stored"
"""The triggerer stored the image."""
READY: Outcome = "ready"
"""The job is ready; the worker stores its image."""
FAILED: Outcome = "failed"
"""The job has no image; :attr:`WaitEvent.error` says why."""
HANDED_BACK: Outcome = "handed back"
"""The triggerer cannot wait (no connection there, say); the worker does."""

_OUTCOMES: dict[str, Outcome] = {
    **{outcome: outcome for outcome in (STORED, READY, FAILED, HANDED_BACK)},
    "gave up": HANDED_BACK,  # what earlier versions call it
}
_VERSION = 1
_UNKNOWN_BILLING = "The job that it waited for may be finished and billed."


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitEvent:
    """The one event of a trigger that waits for a job.

    It has the facts only: Airflow logs every event in the triggerer, and a task's log shows both; so the sentence
    about them is for the worker to log.

    :param outcome: How the wait ended.
    :param job: The job.
    :param deadline: Unix time in seconds at which waiting ends.
    :param uri: Where the triggerer was to store the image; None: nowhere.
    :param image: The stored image.
    :param error: Why there is no image, or why the triggerer could not store it.
    :param polls: Number of polls.
    :param waited: Seconds that the triggerer waited.
    :param triggerer: Host name of the triggerer.
    """

    outcome: Outcome
    job: Job
    deadline: float = 0.0
    uri: str | None = None
    image: ImageResult | None = None
    error: FluxError | None = None
    polls: int | None = None
    waited: float | None = None
    triggerer: str | None = None

    @classmethod
    def from_dict(cls, data: Any) -> WaitEvent:
        """Return the event that Airflow delivers; one of another version may contain less.

        :raises ValueError: if it names no job, or its outcome is unknown.
        """
        outcome = _OUTCOMES.get(str(data.get("outcome"))) if isinstance(data, Mapping) else None
        if outcome is None:
            raise ValueError(f"{data!r}")
        deadline, polls, waited = (data.get(name) for name in ("deadline", "polls", "waited"))
        return cls(
            outcome=outcome,
            job=job_from(data),
            deadline=float(deadline) if _is_number_below(deadline, 1e12) else 0.0,
            uri=data["uri"] if isinstance(data.get("uri"), str) else None,
            image=_stored_image(data) if outcome == STORED else None,
            error=_error(data) if outcome == FAILED else None,
            polls=polls if isinstance(polls, int) and _is_number_below(polls, 1e9) else None,
            waited=waited if _is_number_below(waited, 1e9) else None,
            triggerer=data["triggerer"] if isinstance(data.get("triggerer"), str) else None,
        )

    def to_dict(self) -> dict[str, Any]:
        """Return flat JSON that :meth:`from_dict` reads back."""
        return {
            "version": _VERSION,
            **self.job.to_dict(),
            **(self.error.to_dict() if self.error is not None else {}),
            **(self.image.to_dict() if self.image is not None else {}),
            "outcome": self.outcome,
            "deadline": self.deadline,
            "uri": self.uri,
            "polls": self.polls,
            "waited": self.waited,
            "triggerer": self.triggerer,
        }

    @property
    def summary(self) -> str | None:
        """The sentence that says what the triggerer did; None if the event, of another version, does not say."""
        if self.triggerer is None or self.waited is None:
            return None
        ends = {STORED: "stored the image", READY: "left the image to the worker", FAILED: "found no image"}
        end = ends.get(self.outcome, "left the wait to the worker")
        polls = "" if self.polls is None else f" and {self.polls} poll{'' if self.polls == 1 else 's'}"
        host, job_id = self.triggerer[:100], self.job.id[:100]
        return f"After {self.waited:.0f} s{polls} for job {job_id}, the triggerer at {host} {end}."


def _is_number_below(value: Any, limit: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < limit


def _stored_image(data: Mapping[str, Any]) -> ImageResult | None:
    """Return the stored image; None if the event, of another version, does not describe all of it."""
    image = replace(ImageResult.from_dict(data), reused=False, paid_by=None)
    return image if image.is_stored and image.format and image.width and image.height else None


def _error(data: Mapping[str, Any]) -> FluxError:
    billing = data.get("billing") or data.get("money") or _UNKNOWN_BILLING
    return error_from_dict({"job_id": data.get("id"), **data, "billing": billing})
