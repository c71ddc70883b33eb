"""One note about each task without an image: its state, in plain English."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from airflow_provider_flux.gallery.queries import TaskStatus
from airflow_provider_flux.gallery.results import GalleryImage, TaskResult

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


@dataclass(frozen=True, slots=True)
class TaskNote:
    """What to say about a task without an image; its text is a sentence.

    :param task_id: The task.
    :param map_indexes: Its mapped instances that the note is about; empty for a task that is not mapped.
    :param state: Airflow's state of the task; ``"unreadable"`` if its result could not be read; None: not started.
    :param text: The sentence, which begins with the task's name.
    :param failure: What a failed task says of its failure: ``problem``, ``billing``, ``hint``, ``retry``; None if
        it says nothing, or if the note is about several instances.
    """

    task_id: str
    map_indexes: tuple[int, ...]
    state: str | None
    text: str
    failure: GalleryImage | None = None

    def __str__(self) -> str:
        return self.text


def unreadable_note(result: TaskResult, reason: str) -> TaskNote:
    """Return the note on a result that could not be read."""
    indexes = () if result.map_index < 0 else (result.map_index,)
    return TaskNote(result.task_id, indexes, "unreadable", f"{result.task_id}: {reason}")


def backend_note(result: TaskResult, backend: str | None) -> TaskNote:
    """Return the note on a result that the XCom backend did not return."""
    reason = f"the gallery could not read the result through the XCom backend {backend}. See the API server's log."
    return unreadable_note(result, reason)


def task_notes(
    statuses: Iterable[TaskStatus], failures: Mapping[tuple[str, int], GalleryImage] = MappingProxyType({})
) -> list[TaskNote]:
    """Return one note for each task and state; it covers all mapped instances in that state.

    :param failures: What failed tasks say, by task and map index.
    """
    groups: dict[tuple[str, str | None, str], list[int]] = defaultdict(list)
    for status in statuses:
        sentences = _FLUX_SENTENCES if status.is_flux else _SENTENCES
        sentence = sentences.get(status.state or "", _NOT_STARTED)
        groups[status.task_id, status.state, sentence].append(status.map_index)
    return [
        TaskNote(
            task_id,
            tuple(index for index in indexes if index >= 0),
            state,
            f"{_name(task_id, indexes)} {sentence.format(**(_SINGULAR if len(indexes) == 1 else _PLURAL))}",
            failures.get((task_id, indexes[0])) if len(indexes) == 1 else None,
        )
        for (task_id, state, sentence), indexes in groups.items()
    ]


def _name(task_id: str, indexes: list[int]) -> str:
    mapped = [str(index) for index in indexes if index >= 0]
    if not mapped:
        return task_id
    more = f" and {len(mapped) - _MAX_INDEXES} more" if len(mapped) > _MAX_INDEXES else ""
    return f"{task_id} [{', '.join(mapped[:_MAX_INDEXES])}{more}]"
