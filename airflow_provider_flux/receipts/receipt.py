"""The receipt, a small JSON document: what was asked, what was paid, where the image is.

It is written before the paid request (``intent``, which claims the right to send it), after it (``submitted``), and
when the job has ended (``stored``, ``failed``, ``expired``). It is the image's metadata too.
"""

from __future__ import annotations

import datetime
import json
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, get_args

from airflow_provider_flux.client.jobs import Job, job_from, unix_time
from airflow_provider_flux.exceptions import FluxReceiptError

FORMAT = "airflow-provider-flux/receipt"
VERSION = 1
MAX_BYTES = 1024 * 1024
"""Largest receipt in bytes."""

State = Literal["intent", "submitted", "stored", "failed", "expired"]


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """Which task asked: the identity that all attempts of one task instance share."""

    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    map_index: int = -1

    def is_same_run(self, other: TaskIdentity) -> bool:
        """Return whether this is the same task of the same run; the map index may change between attempts."""
        return (self.dag_id, self.task_id, self.run_id) == (other.dag_id, other.task_id, other.run_id)

    def __str__(self) -> str:
        return f"task {self.task_id} of DAG {self.dag_id}, run {self.run_id}"


@dataclass(frozen=True, slots=True)
class Claim:
    """The right to submit, which one process has for a while.

    :param id: Unique, so that the process recognises its own.
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


@dataclass(frozen=True, slots=True)
class Receipt:
    """One image's receipt.

    :param state: ``intent`` (about to be submitted), ``submitted`` (paid for, perhaps ready), ``stored`` (the image
        is at ``image["uri"]``), ``failed`` (nothing was paid), ``expired`` (paid for, and lost at the API).
    :param fingerprint: SHA-256 of the recipe.
    :param model: The model that was asked.
    :param parameters: The request's fields, without secrets; None where only the job is known.
    :param run: Which task asked, and pays.
    :param job: The job, as :meth:`Job.to_dict` gives it; None before it was accepted.
    :param image: What the task returned of the stored image; None before.
    :param seed: The seed of an image that was made and lost.
    :param orphans: Submits whose answer was lost; each may have been paid for.
    :param reason: Why it failed, or expired.
    :param times: When each state was reached, as UTC in ISO 8601.
    :param claim: Which process may submit, and until when; None if none does.
    :param duplicates: Further jobs that were accepted for this image, and may be paid for, but are not used; each with
        the ``run`` that pays.
    """

    state: State
    fingerprint: str
    model: str | None = None
    parameters: dict[str, Any] | None = None
    run: TaskIdentity = field(default_factory=TaskIdentity)
    job: dict[str, Any] | None = None
    image: dict[str, Any] | None = None
    seed: int | None = None
    orphans: int = 0
    reason: str = ""
    times: dict[str, str] = field(default_factory=dict)
    claim: Claim | None = None
    duplicates: list[dict[str, Any]] = field(default_factory=list)

    @property
    def is_being_submitted(self) -> bool:
        """Whether a process may be sending the paid request at this moment."""
        return self.state == "intent" and self.claim is not None and self.claim.seconds_left > 0

    def payer_beside(self, run: TaskIdentity) -> dict[str, Any] | None:
        """Return the task that pays, as flat JSON, if that is not ``run`` itself."""
        is_other = self.run != TaskIdentity() and not self.run.is_same_run(run)
        return asdict(self.run) if is_other else None

    def may_be_of(self, job: Job) -> bool:
        """Return whether this is the receipt of ``job``, or the intent whose job could not be written down.

        That intent is older than its job; a newer one is another process's.
        """
        if self.job is not None:
            return self.job.get("id") == job.id
        began = unix_time(self.times.get("intent"))
        if self.state != "intent" or began is None or job.submitted_at is None:
            return False
        return began <= job.submitted_at

    def with_unused(self, job: dict[str, Any] | None, run: TaskIdentity) -> Receipt:
        """Return the receipt with one more job that is paid for, but not used."""
        return replace(self, duplicates=[*self.duplicates, {**(job or {}), "run": asdict(run)}])

    def unused_jobs(self) -> list[tuple[Job, TaskIdentity]]:
        """Return the jobs that are paid for, but not used, and the task that pays for each."""
        return [(job_from(job), TaskIdentity(**job["run"])) for job in self.duplicates]

    def unused_cost(self, run: TaskIdentity) -> float:
        """Return the credits of the jobs that ``run`` pays for and that are not used, as far as they are known."""
        return sum(job.cost or 0.0 for job, payer in self.unused_jobs() if payer.is_same_run(run))

    def with_state(self, state: State, **changes: Any) -> Receipt:
        """Return the receipt in another state, with the time noted."""
        return replace(self.with_timestamp(state), state=state, **changes)

    def with_timestamp(self, moment: str) -> Receipt:
        """Return the receipt with the time of a moment noted: now."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
        return replace(self, times={**self.times, moment: now})

    def paid_job(self) -> Job:
        """Return the job that was accepted."""
        return job_from(self.job)

    def to_json(self) -> str:
        """Return the document."""
        return json.dumps({"format": FORMAT, "version": VERSION, **asdict(self)}, indent=1, ensure_ascii=False)


def read_receipt(text: str | bytes, where: str) -> Receipt:
    """Return the receipt that the document holds.

    :raises FluxReceiptError: if it is not a whole receipt of a version that is known here.
    """
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise FluxReceiptError(f"{where} is not JSON ({error}).") from None
    if not isinstance(data, Mapping) or data.get("format") != FORMAT:
        raise FluxReceiptError(f"{where} is not a receipt of this provider.")
    if data.get("version") != VERSION:
        raise FluxReceiptError(f"{where} is a receipt of version {data.get('version')!r}, which is not known here.")
    wrong = [name for name, good in _CHECKS.items() if not good(data.get(name))]
    wrong += [name for name, good in _LATER_CHECKS.items() if name in data and not good(data[name])]
    needed = {"submitted": ("job",), "expired": ("job",), "stored": ("job", "image")}
    if not wrong:
        wrong = [name for name in needed.get(data["state"], ()) if data.get(name) is None]
    if wrong:
        raise FluxReceiptError(f"{where} is a damaged receipt: its {', '.join(wrong)} cannot be right.")
    known = {item.name for item in fields(Receipt)}
    given = {name: value for name, value in data.items() if name in known}
    claim = given.get("claim")
    return Receipt(
        **{**given, "run": TaskIdentity(**given["run"]), "claim": Claim(**claim) if claim is not None else None}
    )


def _is_job(value: Any) -> bool:
    if value is None:
        return True
    try:
        return isinstance(value, dict) and bool(job_from(value))
    except ValueError:
        return False


def _is_run(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {item.name for item in fields(TaskIdentity)}:
        return False
    names = [value[name] for name in ("dag_id", "task_id", "run_id")]
    return type(value["map_index"]) is int and all(name is None or isinstance(name, str) for name in names)


def _is_image(value: Any) -> bool:
    if value is None:
        return True
    kinds = {"id": str, "uri": str, "sha256": str, "bytes": int}
    return isinstance(value, dict) and all(type(value.get(name)) is kind for name, kind in kinds.items())


def _is_claim(value: Any) -> bool:
    if value is None:
        return True
    try:
        return set(value) == {"id", "until"} and isinstance(Claim(**value).seconds_left, float)
    except (TypeError, ValueError):
        return False


def _is_unused_job(value: Any) -> bool:
    return isinstance(value, dict) and _is_job(value) and _is_run(value.get("run"))


# What receipts of earlier releases do not have.
_LATER_CHECKS = {
    "claim": _is_claim,
    "duplicates": lambda value: isinstance(value, list) and all(map(_is_unused_job, value)),
}
_CHECKS = {
    "state": lambda value: value in get_args(State),
    "fingerprint": lambda value: isinstance(value, str) and bool(value),
    "model": lambda value: value is None or isinstance(value, str),
    "parameters": lambda value: value is None or isinstance(value, dict),
    "run": _is_run,
    "job": _is_job,
    "image": _is_image,
    "seed": lambda value: value is None or type(value) is int,
    "orphans": lambda value: type(value) is int and value >= 0,
    "reason": lambda value: isinstance(value, str),
    "times": lambda value: isinstance(value, dict),
}
