"""What a run, or a part of it, contains: its images, and notes on the tasks that have none."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from fastapi.concurrency import run_in_threadpool

from airflow_provider_flux.gallery import backends, queries, reading
from airflow_provider_flux.gallery.backends import Resolved
from airflow_provider_flux.gallery.notes import TaskNote, backend_note, task_notes, unreadable_note
from airflow_provider_flux.gallery.queries import Selection, TaskStatus
from airflow_provider_flux.gallery.results import (
    GalleryImage,
    ManifestLine,
    TaskResult,
    deduplicate_jobs,
    failed_image,
    images_in,
)

# In any other state, as after a person has marked the task as a success, the reason is out of date.
_STATES_AFTER_FAILURE = ("failed", "skipped", "up_for_retry")
_Manifest = Mapping[int, ManifestLine] | BaseException | None


@dataclass(frozen=True, slots=True)
class Contents:
    """What the selected task instances have.

    :param statuses: Their states; empty if there are none.
    :param images: Their images, and jobs and failures without one.
    :param notes: One on each task without an image, and on what could not be read.
    :param is_complete: Whether everything could be read.
    """

    statuses: Sequence[TaskStatus]
    images: Sequence[GalleryImage]
    notes: Sequence[TaskNote]
    is_complete: bool = True

    @property
    def is_finished(self) -> bool:
        """Whether no task can return further images."""
        return all(status.is_finished for status in self.statuses)


@dataclass(frozen=True, slots=True)
class _Rows:
    """What Airflow's database, and the XCom backend, have of the selected task instances."""

    statuses: Sequence[TaskStatus]
    results: Resolved
    failures: Resolved


async def load(selection: Selection) -> Contents:
    """Read the selected task instances, without blocking the event loop."""
    statuses = await run_in_threadpool(queries.task_statuses, selection)
    rows = _Rows(statuses, await _results(selection), await _failures(selection))
    manifests = await _read_manifests(rows.results.results)
    # Not on the event loop: a batch may have a hundred thousand images.
    return await run_in_threadpool(_combine, selection, rows, manifests)


async def load_results(selection: Selection) -> Sequence[TaskResult]:
    """Return the results of the selected task instances that may describe images."""
    return (await _results(selection)).results


async def find_image(selection: Selection, number: int) -> GalleryImage | None:
    """Return the image, stored or not, with this number in the result of one task instance; None if there is none.

    :raises UnreadableError: if it is in a batch's manifest, which cannot be read.
    """
    for result in await load_results(selection):
        lines = await reading.read_batch_manifest(result)
        if lines is not None:
            lines = {number: lines[number]} if number in lines else {}
        for image in images_in(result, lines):
            if image.number == number:
                return image
    failures = (await _failures(selection)).results
    return next((image for image in map(failed_image, failures) if image and image.number == number), None)


async def _results(selection: Selection) -> Resolved:
    results = await run_in_threadpool(queries.task_results, selection, backends.object_storage_path())
    return await backends.resolve(selection, results)


async def _failures(selection: Selection) -> Resolved:
    return await backends.resolve(selection, await run_in_threadpool(queries.task_failures, selection))


async def _read_manifests(results: Iterable[TaskResult]) -> list[_Manifest]:
    return await asyncio.gather(*map(reading.read_batch_manifest, results), return_exceptions=True)


def _combine(selection: Selection, rows: _Rows, manifests: Sequence[_Manifest]) -> Contents:
    images: list[GalleryImage] = []
    notes = [backend_note(result, rows.results.backend) for result in rows.results.unreadable if result.uses_flux]
    covered = {(result.task_id, result.map_index) for result in rows.results.unreadable}
    for result, manifest in zip(rows.results.results, manifests, strict=True):
        if isinstance(manifest, reading.UnreadableError):
            notes.append(unreadable_note(result, str(manifest)))
        elif isinstance(manifest, BaseException):
            raise manifest
        elif found := list(images_in(result, manifest)):
            images += found
        else:
            continue
        covered.add((result.task_id, result.map_index))
    failures = _missing_images(rows)
    # A batch that failed half way has images, and a reason.
    images += [image for instance, image in failures.items() if instance not in covered]
    # A run's page is silent about tasks that have nothing to do with FLUX.
    noted = [
        status
        for status in rows.statuses
        if (status.task_id, status.map_index) in failures
        or ((status.task_id, status.map_index) not in covered and (status.is_flux or selection.is_part))
    ]
    # So far, the notes are on what could not be read.
    return Contents(rows.statuses, deduplicate_jobs(images), [*notes, *task_notes(noted, failures)], not notes)


def _missing_images(rows: _Rows) -> dict[tuple[str, int], GalleryImage]:
    """Return what the tasks that have failed say about their images, by task and map index."""
    states = {(status.task_id, status.map_index): status.state for status in rows.statuses}
    images = {(failure.task_id, failure.map_index): failed_image(failure) for failure in rows.failures.results}
    return {
        instance: image
        for instance, image in images.items()
        if image is not None and states.get(instance) in _STATES_AFTER_FAILURE
    }
