"""The bodies of a poll's answer, in each of the shapes that have been seen in the field."""

from __future__ import annotations

from typing import Any

from airflow_provider_flux.emulator.jobs import Job, Shape
from airflow_provider_flux.emulator.models import MODELS

_REASONS = {"Request Moderated": ["Sexual Content"], "Content Moderated": ["Violence"]}
_DONE = ("ready", "success", "succeeded", "completed")
_ENVELOPE = {
    "Pending": "IN_PROGRESS",
    "Ready": "SUCCESS",
    "Error": "FAILURE",
    "Request Moderated": "FAILURE",
    "Content Moderated": "FAILURE",
}
_REPLICATE = {
    "Pending": "processing",
    "Ready": "succeeded",
    "Error": "failed",
    "Request Moderated": "failed",
    "Content Moderated": "failed",
}


def not_found(job_id: str) -> dict[str, Any]:
    """The answer for an id that this place does not know."""
    return _body(job_id, "Task not found")


def found(job: Job, now: float, sample: str, status: str | None = None, details: Any = None) -> dict[str, Any]:
    """The answer for a job.

    :param sample: the delivery link, told only once the job is ready.
    :param status: say this word instead of the true one; a word that does not mean "done" hides the
        result.
    :param details: told instead of the status's own details.
    """
    truth = job.status(now)
    word = truth if status is None else status
    body = _body(job.id, word)
    body["details"] = details if details is not None else _details(word)
    if word == "Pending":
        taken = max(job.ready_at - job.submitted, 1e-9)
        body["progress"] = round(min(1.0, (now - job.submitted) / taken), 2)
    if truth == "Ready" and word.lower() in _DONE:
        body["result"] = {
            "sample": sample,
            "prompt": job.prompt,
            "seed": job.seed,
            "start_time": job.submitted,
            "end_time": job.ready_at,
            "duration": job.ready_at - job.submitted,
        }
        if MODELS[job.model].late_cost or job.settled_cost != job.cost:
            body["cost"] = job.settled_cost
    return body


def shaped(body: dict[str, Any], shape: Shape) -> dict[str, Any]:
    """The flat `body` in the given shape. Status words without a counterpart stay as they are."""
    status, result = body["status"], body["result"]
    details = body["details"]
    reason = f"{status}: {details}" if details else status
    if shape == "wrapped":
        word = _ENVELOPE.get(status, status)
        failed = word == "FAILURE"
        data = {
            "task_id": body["id"],
            "status": word,
            "fail_reason": reason if failed else "",
            "progress": "100%" if result else "0%",
            "data": result,
        }
        return {"code": "success", "message": "", "data": data}
    if shape == "replicate":
        word = _REPLICATE.get(status, status)
        sample = result.get("sample") if result else None
        return {
            "id": body["id"],
            "status": word,
            "output": [sample] if sample else None,
            "error": reason if word == "failed" else None,
            "metrics": {"predict_time": result["duration"]} if result else {},
            "urls": {},
        }
    return body


def _body(job_id: str, status: str) -> dict[str, Any]:
    empty = dict.fromkeys(("result", "progress", "details", "preview"))
    return {"id": job_id, "status": status, **empty}


def _details(status: str) -> dict[str, Any] | None:
    return {"Moderation Reasons": _REASONS[status]} if status in _REASONS else None
