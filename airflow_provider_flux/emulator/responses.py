"""The bodies of poll responses, in each of the shapes that clients have reported."""

from __future__ import annotations

from typing import Any

from airflow_provider_flux.emulator.jobs import Job
from airflow_provider_flux.emulator.models import MODELS
from airflow_provider_flux.emulator.settings import Shape

Body = dict[str, Any]

_MODERATION_REASONS = {"Request Moderated": ["Sexual Content"], "Content Moderated": ["Violence"]}
_READY_WORDS = ("ready", "success", "succeeded", "completed")
_WRAPPED_STATUS = {
    "Pending": "IN_PROGRESS",
    "Ready": "SUCCESS",
    "Error": "FAILURE",
    "Request Moderated": "FAILURE",
    "Content Moderated": "FAILURE",
}
_REPLICATE_STATUS = {
    "Pending": "processing",
    "Ready": "succeeded",
    "Error": "failed",
    "Request Moderated": "failed",
    "Content Moderated": "failed",
}


def unknown_job(job_id: str) -> Body:
    """Return the body for an id that this host does not know."""
    return _body(job_id, "Task not found")


def known_job(job: Job, now: float, sample: str, status: str | None = None, details: Any = None) -> Body:
    """Return the body for a job.

    :param now: the time in epoch seconds.
    :param sample: the download link, included only once the job is ready.
    :param status: replaces the job's status word; a word that does not mean "ready" also removes the result.
    :param details: replaces the details that belong to the status.
    """
    true_status = job.status(now)
    word = true_status if status is None else status
    body = _body(job.id, word)
    body["details"] = details if details is not None else _details(word)
    if word == "Pending":
        duration = max(job.ready_at - job.submitted, 1e-9)
        body["progress"] = round(min(1.0, (now - job.submitted) / duration), 2)
    if true_status == "Ready" and word.lower() in _READY_WORDS:
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


def reshape(body: Body, shape: Shape) -> Body:
    """Return a flat `body` in the given shape. Status words without an equivalent are kept unchanged."""
    if shape == "wrapped":
        return _wrapped(body)
    if shape == "replicate":
        return _replicate(body)
    return body


def _wrapped(body: Body) -> Body:
    word = _WRAPPED_STATUS.get(body["status"], body["status"])
    data = {
        "task_id": body["id"],
        "status": word,
        "fail_reason": _reason(body) if word == "FAILURE" else "",
        "progress": "100%" if body["result"] else "0%",
        "data": body["result"],
    }
    return {"code": "success", "message": "", "data": data}


def _replicate(body: Body) -> Body:
    word, result = _REPLICATE_STATUS.get(body["status"], body["status"]), body["result"]
    sample = result.get("sample") if result else None
    return {
        "id": body["id"],
        "status": word,
        "output": [sample] if sample else None,
        "error": _reason(body) if word == "failed" else None,
        "metrics": {"predict_time": result["duration"]} if result else {},
        "urls": {},
    }


def _reason(body: Body) -> str:
    return f"{body['status']}: {body['details']}" if body["details"] else body["status"]


def _body(job_id: str, status: str) -> Body:
    empty = dict.fromkeys(("result", "progress", "details", "preview"))
    return {"id": job_id, "status": status, **empty}


def _details(status: str) -> Body | None:
    return {"Moderation Reasons": _MODERATION_REASONS[status]} if status in _MODERATION_REASONS else None
