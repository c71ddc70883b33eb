"""What a task returns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.client.jobs import Job, iso_time

if TYPE_CHECKING:
    from airflow_provider_flux.client.responses import Result


def describe(result: Result) -> dict[str, Any]:
    """Return what a task tells of a finished job: flat JSON, nothing secret."""
    return {
        **describe_job(result.job),
        "status": result.status,
        "seed": result.seed,
        "cost": result.cost if result.cost is not None else result.job.cost,
        "duration": result.duration,
    }


def describe_job(job: Job) -> dict[str, Any]:
    """Return what a task tells of a job that it did not wait for."""
    told = {**job.to_dict(), "submitted_at": iso_time(job.submitted_at), "status": "Pending"}
    if told["polling_url"] is None:
        del told["polling_url"]
    return told


def describe_reused(
    image: Mapping[str, Any], run: Mapping[str, Any], paid_by: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what a task returns of an image that was paid for before.

    :param image: What was returned of it then.
    :param run: The task that runs.
    :param paid_by: The task that paid for the image, if that is another one: this one then pays nothing for it.
    """
    if paid_by is None:
        return {**image, "reused": True, "paid_by": dict(run)}
    return {**image, "cost": 0, "reused": True, "paid_by": dict(paid_by)}


def with_unused(image: dict[str, Any], cost: float) -> dict[str, Any]:
    """Return the description of an image for which further jobs are billed that are not used.

    :param cost: Credits of those jobs.
    """
    return {**image, "cost": (image.get("cost") or 0) + cost} if cost else image
