"""One sentence about each task without an image: its state, in plain English."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from airflow_provider_flux.gallery.queries import TaskStatus

_SENTENCES = {
    "success": "finished.",
    "failed": "failed. See {its_log}.",
    "upstream_failed": "did not run because an upstream task failed.",
    "skipped": "{was} skipped.",
    "removed": "{is} no longer part of the DAG.",
    "deferred": "{is} waiting in the triggerer.",
    "awaiting_input": "{is} waiting for a person's response.",
    "up_for_retry": "failed and will be retried.",
    "up_for_reschedule": "{is} waiting to be rescheduled.",
    "running": "{is} running.",
    "restarting": "{is} restarting.",
    "queued": "{is} waiting for a worker.",
    "scheduled": "{is} waiting for a worker.",
}
_FLUX_SENTENCES = _SENTENCES | {
    "success": "finished without returning an image.",
    "deferred": "{is} waiting for {its_image}.",
}
_NOT_STARTED = "{has} not started yet."
_SINGULAR = {"is": "is", "was": "was", "has": "has", "its_log": "its log", "its_image": "its image"}
_PLURAL = {"is": "are", "was": "were", "has": "have", "its_log": "their logs", "its_image": "their images"}
_MAX_INDEXES = 10


def task_notes(statuses: Iterable[TaskStatus]) -> list[str]:
    """Return one sentence for each task and state; it covers all mapped instances in that state."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for status in statuses:
        sentences = _FLUX_SENTENCES if status.is_flux else _SENTENCES
        groups[status.task_id, sentences.get(status.state or "", _NOT_STARTED)].append(status.map_index)
    return [
        f"{_name(task_id, indexes)} {sentence.format(**(_SINGULAR if len(indexes) == 1 else _PLURAL))}"
        for (task_id, sentence), indexes in groups.items()
    ]


def _name(task_id: str, indexes: list[int]) -> str:
    mapped = [str(index) for index in indexes if index >= 0]
    if not mapped:
        return task_id
    more = f" and {len(mapped) - _MAX_INDEXES} more" if len(mapped) > _MAX_INDEXES else ""
    return f"{task_id} [{', '.join(mapped[:_MAX_INDEXES])}{more}]"
