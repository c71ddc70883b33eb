"""A FLUX error as Airflow handles it: whether the task is retried, and the sentence that says what a retry does."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_flux.exceptions import (
    FluxContentModeratedError,
    FluxError,
    FluxImageExpiredError,
    FluxJobFailedError,
    FluxJobNotFoundError,
    FluxModeratedError,
    FluxOrphanError,
    FluxUncertainSubmitError,
)

try:
    from airflow.sdk.exceptions import AirflowNotFoundException
except ImportError:
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined] # before Airflow 3.2

log = logging.getLogger(__name__)

__all__ = [
    "FAILURE_KEY",
    "AirflowNotFoundException",
    "abandoned_job_message",
    "airflow_errors",
    "failure_record",
    "for_airflow",
    "log_error",
    "retry_sentence",
]

FAILURE_KEY = "flux_failure"
"""Key of the XCom that says why a task failed: see :func:`failure_record`."""

MAX_FAULTS_LOGGED = 100
"""Faults of one error that are logged at most."""

_MAX_MESSAGE = 2000

SAME_JOB_AGAIN = "A retry resumes the same job and is not billed again."


def _failing(cls: type[FluxError]) -> type[FluxError]:
    return type(cls.__name__, (cls, AirflowFailException), {"__doc__": cls.__doc__, "__module__": cls.__module__})


def for_airflow(error: FluxError, retry: str = "") -> FluxError:
    """Return ``error`` as a task should raise it.

    It keeps its class, and is an ``AirflowFailException`` too if a retry cannot succeed.

    :param retry: One sentence that says what a retry of this task does.
    """
    cls = type(error)
    if not error.retryable and not issubclass(cls, AirflowFailException):
        cls = _failing(cls)
    raised = cls(
        error.message,
        job_id=error.job_id,
        billing=error.billing,
        retry_after=error.retry_after,
        faults=error.faults,
    )
    raised.retryable = error.retryable
    raised.is_logged = error.is_logged
    if retry:
        raised.args = (f"{raised} {retry}",)
    return raised


def log_error(error: FluxError, retry: str = "") -> None:
    """Log the complete ``error`` as ERROR: one line for each fault, then one for the billing and what to do.

    :param retry: One sentence that says what a retry of this task does.
    """
    for fault in error.faults[:MAX_FAULTS_LOGGED]:
        log.error("%s", fault)
    if (more := len(error.faults) - MAX_FAULTS_LOGGED) > 0:
        log.error("... and %d more.", more)
    log.error("%s", " ".join(part for part in (error.billing, error.hint, retry) if part))


@contextlib.contextmanager
def airflow_errors(retry: Callable[[FluxError], str] = lambda error: "", *, is_logged: bool = True) -> Iterator[None]:
    """Raise FLUX errors of the block as :func:`for_airflow` returns them, and log each once before.

    Airflow shows an exception's message as one unwrapped line, and below it the frames and messages of all its
    causes. The message names the cause; the cause itself may contain a signed URL and is left out.

    :param retry: Returns the sentence that says what a retry does after that error.
    :param is_logged: Whether to log the error; not where the caller may handle it.
    """
    try:
        yield
    except FluxError as error:
        if is_logged and not error.is_logged:
            log_error(error, retry(error))
            error.is_logged = True
        raise for_airflow(error, retry(error)) from None


def failure_record(error: FluxError, *, retry: str, model: str | None, uri: str | None, cost: float | None) -> Any:
    """Return flat JSON on a failed task, for the gallery: a failed task returns no result that could say it.

    :param retry: One sentence that says what a retry of this task does.
    :param uri: Where the image was to be stored; None: nowhere.
    :param cost: Credits that are or may be billed for the job; None if unknown.
    """
    return {
        "version": 1,
        "state": "moderated" if isinstance(error, FluxModeratedError) else "failed",
        "error": type(error).__name__,
        "message": error.message[:_MAX_MESSAGE],
        "billing": error.billing[:_MAX_MESSAGE],
        "hint": error.hint,
        "retry": retry,
        "job_id": error.job_id,
        "model": model,
        "uri": uri,
        "cost": 0 if is_free(error) else cost,
    }


def is_free(error: FluxError) -> bool:
    """Return whether nothing was billed, nor may be."""
    if isinstance(error, FluxModeratedError):
        return not isinstance(error, FluxContentModeratedError)
    return isinstance(error, FluxJobFailedError) or error.billing == FluxError.billing_note(None)


def retry_sentence(error: FluxError, has_receipt: bool, on_orphan: str) -> str:
    """Return the sentence that says what a retry of FluxGenerateOperator does after ``error``.

    :param has_receipt: Whether the retry can find this attempt's job.
    :param on_orphan: The task's policy.
    """
    is_uncertain = isinstance(error, FluxUncertainSubmitError) and not isinstance(error, FluxOrphanError)
    if is_uncertain and on_orphan == "fail":
        return "The task is not retried, so that nothing is submitted again (on_orphan='fail')."
    if not error.retryable:
        if isinstance(error, (FluxImageExpiredError, FluxJobNotFoundError)):
            return "The task is not retried (on_expired='fail')."
        return ""
    if is_uncertain:
        return "A retry submits again and may be billed a second time (on_orphan='resubmit')."
    if isinstance(error, (FluxImageExpiredError, FluxJobNotFoundError)):
        return "A retry submits a new job, which is billed (on_expired='resubmit')."
    if isinstance(error, FluxJobFailedError):
        return "A retry submits a new job."
    if error.job_id is None:
        return "A retry starts over."
    return SAME_JOB_AGAIN if has_receipt else "A retry submits a new job, which is billed separately."


def abandoned_job_message(job_id: str, has_receipt: bool = True, is_running: bool = False) -> str:
    """Return the sentence for the log of a task that ends while its job continues.

    :param has_receipt: Whether another attempt of the task can find the job.
    :param is_running: Whether the task received a termination signal only, and may well continue.
    """
    then = "resumes it" if has_receipt else "submits a new job, which is billed separately"
    if is_running:
        return (
            f"This process received a termination signal while job {job_id} is running, and continues. The API cannot "
            f"cancel jobs: if the process is killed, the job is billed if it finishes, and the next attempt {then}."
        )
    return (
        f"Job {job_id} is still running: the API cannot cancel jobs, and it is billed if it finishes. "
        f"The next attempt {then}."
    )
