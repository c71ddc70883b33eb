"""Wait for a job: shortly on the worker, then in the triggerer; and resume from the trigger's event."""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.exceptions import FluxServiceError, FluxTimeoutError
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.results import FAILED, WaitEvent
from airflow_provider_flux.triggers.flux import FluxResultTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_provider_flux.client.jobs import Job
    from airflow_provider_flux.client.responses import Result
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.results import ImageResult

DEFAULT_DEFER_AFTER = 5.0
"""Seconds to wait on the worker first: about the cost of a deferral, which is also a chance to fail."""
FINAL_CHECK_TIMEOUT = 5.0
"""Seconds that the worker waits for a job for which the triggerer has waited in full."""
MIN_RESUMED_TIMEOUT = 60.0
"""Least seconds that the worker waits for a job that the triggerer leaves to it."""
DEFERRAL_MARGIN = 60.0
"""Seconds after the deadline at which Airflow itself ends a deferral whose trigger never fired."""


@dataclass(frozen=True, slots=True)
class WaitOptions:
    """How a task waits for its job.

    :param timeout: Seconds after the submit at which waiting ends.
    :param deferrable: Whether to wait in the triggerer.
    :param defer_after: Seconds to wait on the worker before deferring.
    :param poll_interval: Seconds between polls; None: estimated from how long such jobs take.
    :param max_bytes: Largest accepted image, in bytes.
    """

    timeout: float
    deferrable: bool = True
    defer_after: float = DEFAULT_DEFER_AFTER
    poll_interval: float | None = None
    max_bytes: int = MAX_BYTES

    def deadline(self, operator: BaseOperator, submitted_at: float | None) -> float:
        """Return the Unix time in seconds at which waiting ends.

        ``timeout`` counts from the submit, and the task's ``execution_timeout``, which Airflow does not apply while a
        task is deferred, from now. An attempt that finds an old job has a few seconds to poll it.

        :param submitted_at: Unix time of the submit; None: now.
        """
        now = time.time()
        deadline = max((submitted_at or now) + self.timeout, now + DEFAULT_DEFER_AFTER)
        if operator.execution_timeout is not None:
            deadline = min(deadline, now + operator.execution_timeout.total_seconds())
        return deadline


def wait_or_defer(
    operator: BaseOperator,
    hook: FluxHook,
    job: Job,
    options: WaitOptions,
    deadline: float,
    *,
    store: dict[str, Any] | None,
    has_receipt: bool = True,
    state: dict[str, Any] | None = None,
) -> Result:
    """Return the finished result of ``job``, or defer ``operator`` to its ``execute_complete``.

    The caller records in the budgets how the job ended (:meth:`FluxHook.settle`), after it has stored the image.

    :param deadline: Unix time in seconds at which waiting ends.
    :param store: Where the triggerer stores the image, as arguments of :func:`open_store`; None: nowhere.
    :param has_receipt: Whether another attempt of the task can find the job.
    :param state: Further arguments of ``execute_complete``: JSON, nothing secret.
    :raises FluxError: if the job ends without an image.
    """
    left = deadline - time.time()
    if not options.deferrable:
        return hook.wait(job, left, options.poll_interval, settle=False)
    try:
        return hook.wait(job, min(options.defer_after, left), options.poll_interval, settle=False)
    except FluxTimeoutError:
        if (now := time.time()) >= deadline:
            raise
    operator.log.info("Job %s is not ready yet; the triggerer waits for it.", job.id)
    trigger = FluxResultTrigger(
        flux_conn_id=hook.flux_conn_id,
        job=job.to_dict(),
        deadline=deadline,
        poll_interval=options.poll_interval,
        store=store,
        max_bytes=options.max_bytes,
        not_before=now + resume_delay(),
        has_receipt=has_receipt,
    )
    return operator.defer(
        trigger=trigger,
        method_name="execute_complete",
        kwargs=state or {},
        timeout=timedelta(seconds=deadline - now + DEFERRAL_MARGIN),
    )


def resume_delay() -> float:
    """Return the seconds that Airflow needs to notice that this process has ended.

    A task that is resumed sooner is failed by the scheduler, which takes the end of the deferring process for
    that of the resumed one (https://github.com/apache/airflow/issues/72716).
    """
    from airflow.configuration import conf

    return conf.getfloat("workers", "min_heartbeat_interval", fallback=5.0) + 1.0


def read_event(data: Any, log: Any) -> WaitEvent:
    """Return the trigger's event, if the job ended well or still may.

    :param data: The payload that Airflow delivers.
    :param log: Receives the line that says what the triggerer did; the triggerer's own log may be lost.
    :raises FluxError: the job's outcome, if it has no image.
    """
    try:
        event = WaitEvent.from_dict(data)
    except ValueError as error:
        raise FluxServiceError(
            f"The trigger returned an unrecognised event ({error}).",
            billing="The job that it waited for may be finished and billed.",
        ) from None
    if (summary := event.summary) is not None:
        log.info("%s", summary)
    if event.error is not None:
        if not isinstance(event.error, FluxTimeoutError) or event.error.job_id is None:
            raise event.error
        # The task has waited for a worker since, and the job may be ready now.
        log.info("%s The worker polls once more.", event.error.message)
    return event


def resumed_timeout(event: WaitEvent) -> float:
    """Return the seconds that the worker may still wait for the job of ``event``."""
    if event.outcome == FAILED:
        return FINAL_CHECK_TIMEOUT
    return max(MIN_RESUMED_TIMEOUT, event.deadline - time.time())


def log_stored(log: Any, image: ImageResult) -> None:
    """Log where the image is stored."""
    log.info(
        "Stored the image of job %s at %s (%sx%s %s, %s bytes).",
        image.id,
        image.uri,
        image.width,
        image.height,
        image.format,
        image.bytes,
    )
