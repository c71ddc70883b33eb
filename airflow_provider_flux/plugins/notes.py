"""What became of the tasks that made no image, in one sentence each."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from airflow_provider_flux.plugins.runs import Task

_MEANING = {
    "success": "ended without an image that it tells of",
    "failed": "failed and made no image; the task's log says why, and whether it was paid for",
    "upstream_failed": "did not run, since a task before it failed",
    "skipped": "was skipped: its image was withheld by moderation, or it was not to run",
    "removed": "is no longer part of the DAG",
    "deferred": "is waiting for its image",
    "up_for_retry": "failed and will be tried again",
    "up_for_reschedule": "is waiting",
    "running": "is running",
    "restarting": "is running",
    "queued": "waits for a worker",
    "scheduled": "waits for a worker",
}
_NOT_YET = "has not run yet"
_LISTED = 10


def notes_on(tasks: Iterable[Task]) -> list[str]:
    """Return one sentence for each task and state."""
    groups: dict[tuple[str, str | None], list[int]] = defaultdict(list)
    for task in tasks:
        groups[task.task_id, task.state].append(task.map_index)
    return [
        f"{_name(task_id, indexes)} {_MEANING.get(state or '', _NOT_YET)}."
        for (task_id, state), indexes in groups.items()
    ]


def _name(task_id: str, indexes: list[int]) -> str:
    mapped = [str(index) for index in indexes if index >= 0]
    if not mapped:
        return task_id
    more = f" and {len(mapped) - _LISTED} more" if len(mapped) > _LISTED else ""
    return f"{task_id} [{', '.join(mapped[:_LISTED])}{more}]"
