"""Wait for a job as a task should: shortly on the worker, then in the triggerer."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_flux.client.errors import FluxServiceError, FluxTimeoutError, error_from_dict
from airflow_provider_flux.client.jobs import Job, job_from
from airflow_provider_flux.triggers.flux import FAILED, GAVE_UP, READY, FluxResultTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_provider_flux.client.answers import Result
    from airflow_provider_flux.hooks.flux import FluxHook

GRACE = 5.0
"""Seconds to wait on the worker first: about what a deferral costs, which is also a chance to fail."""
NET = 60.0
"""Seconds after the deadline at which Airflow itself ends a deferral whose trigger never fired."""


class Waited(NamedTuple):
    """What a trigger's event says."""

    job: Job
    uri: str | None
    timeout: float


def wait_or_defer(
    operator: BaseOperator,
    hook: FluxHook,
    job: Job,
    *,
    timeout: float,
    deferrable: bool,
    grace: float = GRACE,
    poll_interval: float | None = None,
    uri: str | None = None,
) -> Result:
    """Return the finished result of ``job``, or defer ``operator`` to ``execute_complete``.

    :param timeout: Seconds from now until waiting ends.
    :param grace: Seconds to wait on the worker before deferring.
    :param uri: Where the image is to be stored; comes back in the event.
    :raises FluxError: if the job ends in another way.
    """
    if not deferrable:
        return hook.wait(job, timeout, poll_interval)
    deadline = time.time() + timeout
    try:
        return hook.wait(job, min(grace, timeout), poll_interval)
    except FluxTimeoutError:
        if time.time() >= deadline:
            raise
    operator.log.info("Job %s is not ready yet; the triggerer waits for it.", job.id)
    now = time.time()
    raise TaskDeferred(
        trigger=FluxResultTrigger(
            flux_conn_id=hook.flux_conn_id,
            job=job.to_dict(),
            deadline=deadline,
            poll_interval=poll_interval,
            uri=uri,
            not_before=now + _settling(),
        ),
        method_name="execute_complete",
        timeout=timedelta(seconds=deadline - now + NET),
    )


def _settling() -> float:
    """Return the seconds that Airflow needs to notice that this process has ended.

    A task that is resumed sooner is failed by the scheduler, which takes the end of the deferring process for
    that of the resumed one (https://github.com/apache/airflow/issues/72716).
    """
    from airflow.configuration import conf

    return conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0) + 1.0


def read_event(event: dict[str, Any] | None) -> Waited:
    """Return what the trigger's event says, if there is still something to do.

    :raises FluxError: the job's outcome, if it is not an image.
    """
    outcome = event.get("outcome") if isinstance(event, dict) else None
    if event is None or outcome not in (READY, FAILED, GAVE_UP):
        raise FluxServiceError(
            f"The trigger told nothing that can be understood ({event!r}).",
            money="The job it waited for may be finished and paid for.",
        )
    if outcome == FAILED:
        raise error_from_dict(event)
    return Waited(job_from(event), event.get("uri"), max(60.0, event.get("deadline", 0.0) - time.time()))
