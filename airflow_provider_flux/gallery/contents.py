"""What a run, or a part of it, contains: its images, and notes on the tasks that have none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from airflow_provider_flux.gallery import queries, reading
from airflow_provider_flux.gallery.notes import TaskNote, task_notes, unreadable_note
from airflow_provider_flux.gallery.queries import Selection, TaskStatus
from airflow_provider_flux.gallery.results import GalleryImage, ManifestLine, TaskResult, deduplicate_jobs, images_in

_Manifest = Mapping[int, ManifestLine] | BaseException | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What the selected task instances have.

    :param statuses: Their states; empty if there are none.
    :param images: Their images, and jobs and failures without one.
    :param notes: One on each task without an image, and on what could not be read.
    """

    statuses: Sequence[TaskStatus]
    images: Sequence[GalleryImage]
    notes: Sequence[TaskNote]

    @property
    def is_finished(self) -> bool:
        """Whether no task can return further images."""
        return all(status.is_finished for status in self.statuses)


async def load(selection: Selection) -> Contents:
    """Read the selected task instances, without blocking the event loop."""
    statuses = await run_in_threadpool(queries.task_statuses, selection)
    results = await run_in_threadpool(queries.task_results, selection)
    manifests = await _read_manifests(results)
    # Not on the event loop: a batch may have a hundred thousand images.
    return await run_in_threadpool(_combine, selection, statuses, results, manifests)


def load_blocking(selection: Selection) -> Contents:
    """Read the selected task instances in a thread that has no event loop."""
    statuses, results = queries.task_statuses(selection), queries.task_results(selection)
    return _combine(selection, statuses, results, asyncio.run(_read_manifests(results)))


async def _read_manifests(results: Iterable[TaskResult]) -> list[_Manifest]:
    return await asyncio.gather(*map(reading.read_batch_manifest, results), return_exceptions=True)


def _combine(
    selection: Selection,
    statuses: Sequence[TaskStatus],
    results: Sequence[TaskResult],
    manifests: Sequence[_Manifest],
) -> Contents:
    images: list[GalleryImage] = []
    notes: list[TaskNote] = []
    covered = set()
    for result, manifest in zip(results, manifests, strict=True):
        if isinstance(manifest, reading.UnreadableError):
            notes.append(unreadable_note(result, str(manifest)))
        elif isinstance(manifest, BaseException):
            raise manifest
        elif found := list(images_in(result, manifest)):
            images += found
        else:
            continue
        covered.add((result.task_id, result.map_index))
    # A run's page is silent about tasks that have nothing to do with FLUX.
    uncovered = [
        status
        for status in statuses
        if (status.task_id, status.map_index) not in covered and (status.is_flux or selection.task_id is not None)
    ]
    return Contents(statuses, deduplicate_jobs(images), [*notes, *task_notes(uncovered)])
