"""The receipt, a small JSON document: what was requested, what was paid for, where the image is.

It is written before the paid request (``intent``, which claims the right to send it), after it (``submitted``), and
when the job has ended (``stored``, ``failed``, ``expired``). It is the image's metadata, too.
"""

from __future__ import annotations

import datetime
import functools
import json
import uuid
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError
from pydantic_core import to_json

from airflow_provider_flux.client.jobs import Job, job_from, unix_time
from airflow_provider_flux.exceptions import FluxReceiptError
from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.receipts.recipe import derived_seed
from airflow_provider_flux.results import ImageResult

FORMAT = "airflow-provider-flux/receipt"
VERSION = 1
MAX_BYTES = 1024 * 1024
"""Largest receipt in bytes."""

DIGITAL_SOURCE_TYPE = {"digital-source-type": "trainedAlgorithmicMedia"}
"""That an AI model made the image, in the words of IPTC, which receipts and the metadata in object stores contain.

Source: http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia
"""

ReceiptState = Literal["intent", "submitted", "stored", "failed", "expired"]
MAX_REPLACED = 1000
"""Most jobs of replaced images that a receipt keeps: some 300 kB."""
PAID_STATES: tuple[ReceiptState, ...] = ("submitted", "stored")
"""States of a receipt whose image need not be paid for again."""


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to submit, which one process has for a while.

    :param id: Unique, so that the process recognises its own claim.
    :param until: When its submit has ended for certain, as UTC in ISO 8601.
    """

    id: str
    until: str

    @property
    def seconds_left(self) -> float:
        """Seconds until then; negative if it is past."""
        until = datetime.datetime.fromisoformat(self.until)
        return (until - datetime.datetime.now(datetime.UTC)).total_seconds()


def new_claim(seconds: float) -> Claim:
    """Return a claim that ends in so many seconds."""
    until = datetime.datetime.now(datetime.UTC) + datetime.timedelta(seconds=seconds)
    return Claim(uuid.uuid4().hex, until.isoformat(timespec="milliseconds"))


class UnusedJob(NamedTuple):
    """A job that is billed, though its image is not used.

    :param run: The task that pays.
    """

    job: Job
    run: TaskIdentity

    def to_dict(self) -> dict[str, Any]:
        """Return JSON that a receipt's ``duplicates`` contain."""
        return {**self.job.to_dict(), "run": self.run.to_dict()}


def _read_job(value: Any) -> Job:
    if not isinstance(value, (dict, Job)):
        raise ValueError("not a job")
    return job_from(value)


def _read_image(value: Any) -> ImageResult:
    image = value if isinstance(value, ImageResult) else ImageResult.from_dict(dict(value))
    if not image.is_stored:
        raise ValueError("not a stored image")
    return image


def _read_claim(value: Any) -> Claim:
    claim = value if isinstance(value, Claim) else Claim(**dict(value))
    _ = claim.seconds_left  # raises unless it has a time
    return claim


def _read_unused_job(value: Any) -> UnusedJob:
    if isinstance(value, UnusedJob):
        return value
    run = TaskIdentity.from_dict(value["run"])
    if run is None:
        raise ValueError("not a task")
    return UnusedJob(_read_job(value), run)


def _reader(read: Any) -> BeforeValidator:
    """Return a validator that reports whatever ``read`` raises as an invalid value."""

    def validate(value: Any) -> Any:
        try:
            return None if value is None else read(value)
        except (TypeError, ValueError, KeyError, OverflowError) as error:
            raise ValueError(str(error)) from None

    return BeforeValidator(validate)


@dataclass(frozen=True, slots=True)
class Receipt:
    """One image's receipt.

    :param state: ``intent`` (about to be submitted), ``submitted`` (paid for, possibly ready), ``stored`` (the image
        is at ``image.uri``), ``failed`` (nothing was billed, but for ``moderated`` jobs), ``expired`` (paid for, and
        lost at the API).
    :param fingerprint: SHA-256 of the recipe.
    :param model: The model.
    :param parameters: The request's fields, without secrets; None where only the job is known.
    :param run: The task that asks, and pays.
    :param job: The job; None before one is accepted.
    :param image: The stored image; None before.
    :param seed: The seed of the next submit if the request names none: that of an image that was generated and lost,
        or another one after output moderation.
    :param orphans: Submits that got no response; each may have been billed.
    :param reason: Why it failed, or expired.
    :param times: When each state was reached, as UTC in ISO 8601.
    :param claim: Which process may submit, and until when; None if none may.
    :param duplicates: Further jobs that were accepted for this image and may be billed, but are not used.
    :param moderated: The ids of those of them whose image output moderation withheld.
    :param replaced: Billed jobs of other images that were stored in this place before, the latest ones.
    """

    state: ReceiptState
    fingerprint: Annotated[str, Field(min_length=1)]
    model: str | None = None
    parameters: dict[str, Any] | None = None
    run: TaskIdentity = field(default_factory=TaskIdentity)
    job: Annotated[Job | None, _reader(_read_job)] = None
    image: Annotated[ImageResult | None, _reader(_read_image)] = None
    seed: int | None = None
    orphans: Annotated[int, Field(ge=0)] = 0
    reason: str = ""
    times: dict[str, Any] = field(default_factory=dict)
    claim: Annotated[Claim | None, _reader(_read_claim)] = None
    duplicates: list[Annotated[UnusedJob, _reader(_read_unused_job)]] = field(default_factory=list)
    moderated: list[str] = field(default_factory=list)
    replaced: list[Annotated[UnusedJob, _reader(_read_unused_job)]] = field(default_factory=list)

    @property
    def is_being_submitted(self) -> bool:
        """Whether a process may be sending the paid request at this moment."""
        return self.state == "intent" and self.claim is not None and self.claim.seconds_left > 0

    @property
    def paid_job(self) -> Job:
        """The job that was accepted."""
        assert self.job is not None, f"a receipt that is {self.state} has no job"
        return self.job

    def is_of(self, job: Job | ImageResult) -> bool:
        """Return whether this is the receipt of ``job``."""
        return self.job is not None and self.job.id == job.id

    def may_be_of(self, job: Job) -> bool:
        """Return whether this is the receipt of ``job``, or the intent whose job could not be recorded.

        That intent is older than its job; a newer one is another process's.
        """
        if self.job is not None:
            return self.is_of(job)
        began = unix_time(self.times.get("intent"))
        if self.state != "intent" or began is None or job.submitted_at is None:
            return False
        return began <= job.submitted_at

    def paid_by_other_than(self, run: TaskIdentity) -> TaskIdentity | None:
        """Return the task that pays, if that is not ``run`` itself."""
        is_other = self.run != TaskIdentity() and not self.run.is_same_run(run)
        return self.run if is_other else None

    def unused_cost(self, run: TaskIdentity) -> float:
        """Return the credits of the jobs that ``run`` pays for and does not use, as far as they are known."""
        return sum(unused.job.cost or 0.0 for unused in self.duplicates if unused.run.is_same_run(run))

    def with_unused(self, job: Job, run: TaskIdentity) -> Receipt:
        """Return the receipt with one more job that is billed, but not used."""
        return replace(self, duplicates=[*self.duplicates, UnusedJob(job, run)])

    def paid_cost(self, run: TaskIdentity) -> float:
        """Return the credits that ``run`` pays for this image, used or not, as far as they are known."""
        own = 0.0
        if self.job is not None and self.run.is_same_run(run):
            own = (self.job.cost if self.image is None or self.image.cost is None else self.image.cost) or 0.0
        return own + self.unused_cost(run)

    def moderated_jobs(self, run: TaskIdentity) -> list[str]:
        """Return the ids of the jobs that ``run`` pays for and whose image output moderation withheld."""
        return [job.id for job, payer in self.duplicates if job.id in self.moderated and payer.is_same_run(run)]

    def moderated_cost(self, run: TaskIdentity) -> float:
        """Return the credits of those jobs, as far as they are known."""
        jobs = self.moderated_jobs(run)
        return sum(unused.job.cost or 0.0 for unused in self.duplicates if unused.job.id in jobs)

    def jobs_to_keep(self) -> list[UnusedJob]:
        """Return the billed jobs that the receipt of another image keeps when it replaces this one.

        So what a place has cost is known, although it holds the last image only.
        """
        jobs = [*self.replaced, *(unused for unused in self.duplicates if unused.job.id not in self.moderated)]
        if self.job is not None and self.state in (*PAID_STATES, "expired"):
            settled = None if self.image is None else self.image.cost
            jobs.append(UnusedJob(self.job if settled is None else replace(self.job, cost=settled), self.run))
        return jobs[-MAX_REPLACED:]

    def with_moderated(self) -> Receipt:
        """Return the receipt after output moderation of its job, with another seed unless the request names one."""
        job = self.paid_job
        is_seed_given = (self.parameters or {}).get("seed") not in (None, self.seed)
        seed = None if is_seed_given else derived_seed(job.id)
        return replace(self.with_unused(job, self.run), moderated=[*self.moderated, job.id], seed=seed)

    def with_state(self, state: ReceiptState, **changes: Any) -> Receipt:
        """Return the receipt in another state, with the current time."""
        return replace(self.with_timestamp(state), state=state, **changes)

    def with_timestamp(self, moment: str) -> Receipt:
        """Return the receipt with the current time recorded under ``moment``."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        return replace(self, times={**self.times, moment: now})

    def to_json(self) -> str:
        """Return the document."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "state": self.state,
            "fingerprint": self.fingerprint,
            "model": self.model,
            "parameters": self.parameters,
            "run": self.run.to_dict(),
            "job": self.job and self.job.to_dict(),
            "image": self.image and self.image.to_dict(),
            **(DIGITAL_SOURCE_TYPE if self.image else {}),
            "seed": self.seed,
            "orphans": self.orphans,
            "reason": self.reason,
            "times": self.times,
            "claim": self.claim and {"id": self.claim.id, "until": self.claim.until},
            "duplicates": [unused.to_dict() for unused in self.duplicates],
            "moderated": self.moderated,
            **({"replaced": [replaced.to_dict() for replaced in self.replaced]} if self.replaced else {}),
        }
        # The standard library indents in Python, which takes ten times as long.
        return to_json(document, indent=1).decode()


_NEEDED = {"submitted": ("job",), "expired": ("job",), "stored": ("job", "image")}
"""What a receipt in a state cannot be without."""


def read_receipt(text: str | bytes, where: str) -> Receipt:
    """Return the receipt that the document contains; fields of later versions of the package are ignored.

    :param where: The document's location, for messages.
    :raises FluxReceiptError: if it is not a complete receipt of a known version.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FluxReceiptError(f"{where} is not JSON ({error}).") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise FluxReceiptError(f"{where} is not a receipt of this provider.")
    if data.get("version") != VERSION:
        raise FluxReceiptError(f"{where} is a receipt of the unknown version {data.get('version')!r}.")
    try:
        receipt = _adapter().validate_json(text, strict=True)
    except ValidationError as error:
        invalid = list(dict.fromkeys(str(*fault["loc"][:1]) or "JSON" for fault in error.errors(include_url=False)))
    else:
        invalid = [name for name in _NEEDED.get(receipt.state, ()) if getattr(receipt, name) is None]
        if not invalid:
            return receipt
    raise FluxReceiptError(f"{where} is a corrupt receipt: invalid {', '.join(invalid)}.")


@functools.cache
def _adapter() -> TypeAdapter[Receipt]:
    return TypeAdapter(Receipt)
