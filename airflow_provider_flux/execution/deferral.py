"""Wait for a job as a task should: shortly on the worker, then in the triggerer."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_flux.client.jobs import Job, job_from
from airflow_provider_flux.exceptions import FluxServiceError, FluxTimeoutError, error_from_dict
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.triggers.flux import (
    FAILED,
    HANDED_BACK,
    READY,
    STORED,
    FluxResultTrigger,
    told_image,
    wait_summary,
)

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_provider_flux.client.responses import Result
    from airflow_provider_flux.hooks.flux import FluxHook

DEFAULT_DEFER_AFTER = 5.0
"""Seconds to wait on the worker first: about what a deferral costs, which is also a chance to fail."""
LAST_LOOK = 5.0
"""Seconds that the worker waits for a job for which the triggerer has waited in full."""
DEFERRAL_MARGIN = 60.0
"""Seconds after the deadline at which Airflow itself ends a deferral whose trigger never fired."""


_PERHAPS_PAID = "The job it waited for may be finished and paid for."


class Waited(NamedTuple):
    """What a trigger's event says.

    :param image: What the task should return, if the triggerer has stored the image; None: the worker does.
    :param timeout: Seconds that the worker may still wait.
    :param paid_by: The task that has paid for the job, if it is another one.
    :param unused_cost: Credits of further jobs that the task pays for and does not use.
    """

    job: Job
    image: dict[str, Any] | None
    timeout: float
    paid_by: dict[str, Any] | None
    unused_cost: float


def deadline_for(operator: BaseOperator, submitted_at: float | None, timeout: float) -> float:
    """Return the Unix time at which waiting ends.

    ``timeout`` counts from the submit, and the task's ``execution_timeout``, which Airflow does not apply while a
    task is deferred, from now. A try that finds an old job has at least its defer_after to look at it.
    """
    now = time.time()
    deadline = max((submitted_at or now) + timeout, now + DEFAULT_DEFER_AFTER)
    if operator.execution_timeout is not None:
        deadline = min(deadline, now + operator.execution_timeout.total_seconds())
    return deadline


def wait_or_defer(
    operator: BaseOperator,
    hook: FluxHook,
    job: Job,
    *,
    deadline: float,
    deferrable: bool,
    defer_after: float = DEFAULT_DEFER_AFTER,
    poll_interval: float | None = None,
    store: dict[str, Any] | None = None,
    max_bytes: int = MAX_BYTES,
    has_receipt: bool = True,
    paid_by: dict[str, Any] | None = None,
    unused_cost: float = 0.0,
) -> Result:
    """Return the finished result of ``job``, or defer ``operator`` to ``execute_complete``.

    :param deadline: Unix time in seconds at which waiting ends.
    :param defer_after: Seconds to wait on the worker before deferring.
    :param store: Where the triggerer is to store the image, as :func:`open_store` takes it; None: nowhere.
    :param max_bytes: Largest image that is taken, in bytes.
    :param has_receipt: Whether another attempt of the task will find the job.
    :param paid_by: The task that has paid for the job, if it is another one.
    :param unused_cost: Credits of further jobs that the task pays for and does not use.
    :raises FluxError: if the job ends in another way.
    """
    left = deadline - time.time()
    if not deferrable:
        return hook.wait(job, left, poll_interval)
    try:
        return hook.wait(job, min(defer_after, left), poll_interval)
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
            store=store,
            max_bytes=max_bytes,
            not_before=now + resume_delay(),
            has_receipt=has_receipt,
            paid_by=paid_by,
            unused_cost=unused_cost,
        ),
        method_name="execute_complete",
        timeout=timedelta(seconds=deadline - now + DEFERRAL_MARGIN),
    )


def resume_delay() -> float:
    """Return the seconds that Airflow needs to notice that this process has ended.

    A task that is resumed sooner is failed by the scheduler, which takes the end of the deferring process for
    that of the resumed one (https://github.com/apache/airflow/issues/72716).
    """
    from airflow.configuration import conf

    return conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0) + 1.0


def event_uri(event: dict[str, Any] | None) -> str | None:
    """Return where the trigger was told to store the image; templates may render to something else by now."""
    uri = event.get("uri") if isinstance(event, dict) else None
    return uri if isinstance(uri, str) else None


_LOGGED = {"id": str, "uri": str, "width": int, "height": int, "format": str, "bytes": int}


def log_stored(log: Any, image: dict[str, Any]) -> None:
    """Log the one line that tells where an image lies."""
    log.info(
        "Stored the image of job %s at %s (%dx%d %s, %d bytes).",
        *(image[name] for name in _LOGGED),
    )


def read_event(event: dict[str, Any] | None, log: Any) -> Waited:
    """Return what the trigger's event says, if the job ended well or may still do.

    :param log: Gets the line that says what the triggerer did; the triggerer's own log may get lost.
    :raises FluxError: the job's outcome, if it is not an image.
    """
    outcome = event.get("outcome") if isinstance(event, dict) else None
    if event is None or outcome not in (STORED, READY, FAILED, HANDED_BACK):
        raise FluxServiceError(f"The trigger told nothing that can be understood ({event!r}).", billing=_PERHAPS_PAID)
    if history := wait_summary(event):
        log.info("%s", history)
    paid_by = event.get("paid_by") if isinstance(event.get("paid_by"), dict) else None
    unused = event.get("unused_cost")
    unused_cost = float(unused) if isinstance(unused, (int, float)) else 0.0
    if outcome == FAILED:
        error = error_from_dict({"job_id": event.get("id"), "money": _PERHAPS_PAID, **event})
        if not isinstance(error, FluxTimeoutError) or error.job_id is None:
            raise error
        # The task was in a queue since, and the job may be ready by now.
        log.info("%s It is asked for once more.", error.message)
        return Waited(job_from(event), None, LAST_LOOK, paid_by, unused_cost)
    # An event of another version may tell less; the worker then stores the image.
    is_whole = all(isinstance(event.get(name), kind) for name, kind in _LOGGED.items())
    image = told_image(event) if outcome == STORED and is_whole else None
    deadline = event.get("deadline")
    left = deadline - time.time() if isinstance(deadline, (int, float)) and abs(deadline) < 1e12 else 0.0
    try:
        return Waited(job_from(event), image, max(60.0, left), paid_by, unused_cost)
    except ValueError as error:
        raise FluxServiceError(f"The trigger's event names no job ({error}).", billing=_PERHAPS_PAID) from None
