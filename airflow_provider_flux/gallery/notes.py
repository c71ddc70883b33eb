"""What became of the tasks that made no image, in one sentence each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from airflow_provider_flux.gallery.queries import Task

_MEANING = {
    "success": "ended",
    "failed": "failed; its log says why",
    "upstream_failed": "did not run, since a task before it failed",
    "skipped": "was skipped",
    "removed": "is no longer part of the DAG",
    "deferred": "is waiting in the triggerer",
    "awaiting_input": "is waiting for a person's answer",
    "up_for_retry": "failed and will be tried again",
    "up_for_reschedule": "is waiting",
    "running": "is running",
    "restarting": "is running",
    "queued": "waits for a worker",
    "scheduled": "waits for a worker",
}
_OF_OURS = {
    "success": "ended without an image that it tells of",
    "failed": "failed and tells of no image; its log says why, and what was paid for",
    "skipped": "was skipped: its image was withheld by moderation, or it was not to run",
    "deferred": "is waiting for its image",
}
_NOT_YET = "has not run yet"
_LISTED = 10


def notes_on(tasks: Iterable[Task]) -> list[str]:
    """Return one sentence for each task and state."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for task in tasks:
        known = {**_MEANING, **_OF_OURS} if task.is_flux else _MEANING
        groups[task.task_id, known.get(task.state or "", _NOT_YET)].append(task.map_index)
    return [f"{_name(task_id, indexes)} {meaning}." for (task_id, meaning), indexes in groups.items()]


def _name(task_id: str, indexes: list[int]) -> str:
    mapped = [str(index) for index in indexes if index >= 0]
    if not mapped:
        return task_id
    more = f" and {len(mapped) - _LISTED} more" if len(mapped) > _LISTED else ""
    return f"{task_id} [{', '.join(mapped[:_LISTED])}{more}]"
