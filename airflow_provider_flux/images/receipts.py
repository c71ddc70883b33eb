"""Receipts: what was asked, what was paid, where it lies. The one mechanism behind "never pay twice".

A receipt is a small JSON document that lies beside the image (``hero.png`` -> ``hero.png.json``) or, without a
place for the image, in Airflow's task state store. It is written before the paid request (``intent``), after it
(``submitted``), and when the job has ended (``stored``, ``failed``, ``expired``). It is the image's metadata too.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, Literal, Protocol, get_args

from airflow_provider_flux.client.errors import FluxError
from airflow_provider_flux.client.jobs import Job, job_from
from airflow_provider_flux.images.stores import FluxStoreError, Store

FORMAT = "airflow-provider-flux/receipt"
VERSION = 1
MAX_BYTES = 1024 * 1024

State = Literal["intent", "submitted", "stored", "failed", "expired"]


class FluxReceiptError(FluxError):
    """What lies in a receipt's place is no receipt that can be understood; nothing was submitted."""

    mend = "Look at it, and move or delete it to buy a new image."

    @classmethod
    def _money(cls, job_id: str | None) -> str:
        return super()._money(job_id) if job_id else "Nothing was paid by this try; perhaps by an earlier one."


@dataclass(frozen=True, slots=True)
class Run:
    """Which task asked: the identity that all tries of one task instance share."""

    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    map_index: int = -1

    def is_of(self, other: Run) -> bool:
        """Tell whether this is the same task of the same run; the place in a mapped list may change between tries."""
        return (self.dag_id, self.task_id, self.run_id) == (other.dag_id, other.task_id, other.run_id)


@dataclass(frozen=True, slots=True)
class Receipt:
    """One image's receipt.

    :param state: ``intent`` (about to be submitted), ``submitted`` (paid for, perhaps ready), ``stored`` (the image
        lies at ``image["uri"]``), ``failed`` (nothing was paid), ``expired`` (paid for, and lost at the API).
    :param fingerprint: SHA-256 of the recipe.
    :param model: The model that was asked.
    :param parameters: The request's fields, without secrets; None where only the job is known.
    :param run: Which task asked.
    :param job: The job, as :meth:`Job.to_dict` gives it; None before it was accepted.
    :param image: What the task returned of the stored image; None before.
    :param seed: The seed of an image that was made and lost.
    :param orphans: Submits whose answer was lost; each may have been paid for.
    :param reason: Why it failed, or expired.
    :param times: When each state was reached, as UTC in ISO 8601.
    """

    state: State
    fingerprint: str
    model: str | None = None
    parameters: dict[str, Any] | None = None
    run: Run = field(default_factory=Run)
    job: dict[str, Any] | None = None
    image: dict[str, Any] | None = None
    seed: int | None = None
    orphans: int = 0
    reason: str = ""
    times: dict[str, str] = field(default_factory=dict)

    def become(self, state: State, **changes: Any) -> Receipt:
        """Return the receipt in another state, with the time noted."""
        return replace(self.at(state), state=state, **changes)

    def at(self, moment: str) -> Receipt:
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
    needed = {"submitted": ("job",), "expired": ("job",), "stored": ("job", "image")}
    if not wrong:
        wrong = [name for name in needed.get(data["state"], ()) if data.get(name) is None]
    if wrong:
        raise FluxReceiptError(f"{where} is a damaged receipt: its {', '.join(wrong)} cannot be right.")
    known = {item.name for item in fields(Receipt)}
    given = {name: value for name, value in data.items() if name in known}
    return Receipt(**{**given, "run": Run(**given["run"])})


def _is_job(value: Any) -> bool:
    if value is None:
        return True
    try:
        return isinstance(value, dict) and bool(job_from(value))
    except ValueError:
        return False


def _is_run(value: Any) -> bool:
    if not isinstance(value, dict) or set(value) != {item.name for item in fields(Run)}:
        return False
    names = [value[name] for name in ("dag_id", "task_id", "run_id")]
    return type(value["map_index"]) is int and all(name is None or isinstance(name, str) for name in names)


def _is_image(value: Any) -> bool:
    if value is None:
        return True
    kinds = {"id": str, "uri": str, "sha256": str, "bytes": int}
    return isinstance(value, dict) and all(type(value.get(name)) is kind for name, kind in kinds.items())


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


class Book(Protocol):
    """Where one receipt is kept."""

    where: str

    def read(self) -> Receipt | None:
        """Return the receipt; None if there certainly is none.

        :raises FluxReceiptError: if what lies there is no receipt.
        :raises FluxStoreError: if it cannot be read.
        """

    def write(self, receipt: Receipt) -> None:
        """Keep the receipt in place of any earlier one.

        :raises FluxStoreError: if it cannot be written.
        """


class BesideImage:
    """The receipt lies beside the image, on every version of Airflow."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.where = f"{store.uri}.json"

    def read(self) -> Receipt | None:
        try:
            text = self._store.read_note(MAX_BYTES)
        except Exception as error:
            # Whatever the store's library says: "cannot be read" is not "there is none".
            raise FluxStoreError(
                f"The receipt {self.where} cannot be read ({type(error).__name__}: {error})."
            ) from error
        return None if text is None else read_receipt(text, self.where)

    def write(self, receipt: Receipt) -> None:
        try:
            self._store.write_note(receipt.to_json().encode())
        except Exception as error:
            job_id = (receipt.job or {}).get("id")
            raise FluxStoreError(
                f"The receipt {self.where} of job {job_id} cannot be written ({type(error).__name__}: {error}).",
                job_id=job_id,
                money=f"Job {job_id} was accepted, and is paid for if it finishes." if job_id else None,
            ) from error


class InTaskState:
    """The receipt lies in Airflow's task state store (3.3 and later), which all tries of a task share."""

    KEY = "flux_receipt"
    where = "The receipt in the task state store (key 'flux_receipt')"

    def __init__(self, task_state_store: Any) -> None:
        self._state = task_state_store

    def read(self) -> Receipt | None:
        try:
            text = self._state.get(self.KEY)
        except Exception as error:
            raise FluxStoreError(f"{self.where} cannot be read ({type(error).__name__}: {error}).") from error
        return None if text is None else read_receipt(json.dumps(text), self.where)

    def write(self, receipt: Receipt) -> None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        try:
            self._state.set(self.KEY, json.loads(receipt.to_json()), retention=NEVER_EXPIRE)
        except Exception as error:
            raise FluxStoreError(f"{self.where} cannot be written ({type(error).__name__}: {error}).") from error


class Nowhere:
    """No place for a receipt: an Airflow before 3.3, and no place for the image."""

    where = "nowhere"

    def read(self) -> Receipt | None:
        return None

    def write(self, receipt: Receipt) -> None:
        """Forget it."""


def open_book(store: Store | None, task_state_store: Any) -> Book:
    """Return the place where a task's receipt is kept.

    :param store: Where the image goes; None: nowhere.
    :param task_state_store: Airflow's task state store; None where there is none.
    """
    if store is not None:
        return BesideImage(store)
    return Nowhere() if task_state_store is None else InTaskState(task_state_store)
