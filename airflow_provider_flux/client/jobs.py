"""A job: what the API accepted and bills when it finishes, with all that is needed to find it again."""

from __future__ import annotations

import datetime
import re
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.arguments import is_unset, parse_mapping


@dataclass(frozen=True, slots=True)
class Job:
    """A paid job at the API. Contains no secret.

    :param id: The id that the API assigned.
    :param model: The requested model; None if only the id is known.
    :param polling_url: The URL to poll, for a gateway that requires its own; otherwise None.
    :param cost: Credits, if the API returned them for the submit.
    :param submitted_at: Unix time of the submit in seconds; None if only the id is known.
    :param reservation: What a budget over runs has reserved for it, by its id there; None: nothing, or unknown.
    """

    id: str
    model: str | None = None
    polling_url: str | None = None
    cost: float | None = None
    submitted_at: float | None = None
    reservation: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return flat JSON that :func:`job_from` converts back."""
        data = {
            "id": self.id,
            "model": self.model,
            "polling_url": self.polling_url,
            "cost": self.cost,
            "submitted_at": self.submitted_at,
        }
        return data if self.reservation is None else {**data, "reservation": self.reservation}


def job_from(value: Any) -> Job:
    """Return the job that ``value`` identifies: a Job, a dict with ``id``, such a dict as text, or an id.

    A template without native rendering turns a dict into text.

    :raises ValueError: with a description of ``value``, if it is none of these.
    """
    if isinstance(value, Job):
        return value
    mapping = parse_mapping(value)
    if mapping is None:
        if isinstance(value, str) and _is_id(value.strip()):
            return Job(id=value.strip())
        raise ValueError(f"{_describe(value)} is neither a FLUX job id nor the result of a FLUX task")
    job_id = mapping.get("id")
    if isinstance(job_id, int) and not isinstance(job_id, bool):
        job_id = str(job_id)
    if not isinstance(job_id, str) or not job_id.strip():
        raise ValueError(f"a dict without an 'id' is not the result of a FLUX task (its keys: {sorted(mapping)})")
    return Job(
        id=job_id,
        model=_text(mapping.get("model")),
        polling_url=_text(mapping.get("polling_url")),
        cost=_number(mapping.get("cost")),
        submitted_at=unix_time(mapping.get("submitted_at")),
        reservation=_text(mapping.get("reservation")),
    )


def _is_id(text: str) -> bool:
    return re.fullmatch(r"[A-Za-z0-9._:~-]{1,200}", text) is not None and not is_unset(text)


def iso_time(unix: float | None) -> str | None:
    """Return a Unix time as UTC in ISO 8601, as results and receipts contain it."""
    if unix is None:
        return None
    return datetime.datetime.fromtimestamp(unix, datetime.UTC).isoformat(timespec="milliseconds")


def unix_time(value: Any) -> float | None:
    """Return the Unix time in seconds that ``value`` is, as a number or in ISO 8601; None if it is neither."""
    if isinstance(value, str):
        try:
            return datetime.datetime.fromisoformat(value).timestamp()
        except (ValueError, OverflowError):
            return None
    return _number(value)


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _number(value: Any) -> float | None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number and abs(value) < 1e300 else None


def _describe(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return f"a list of {len(value)} (use .expand(generation=...) for one task each)"
    if is_unset(value):
        return "nothing (the upstream task may have returned None or been skipped)"
    if isinstance(value, str):
        return "this text"
    return f"a value of type {type(value).__name__}"
