"""FLUX errors as Airflow treats and shows them: raised for good where a retry cannot help, logged one fault a line."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_flux.client.errors import FluxError

try:
    from airflow.sdk.exceptions import AirflowNotFoundException
except ImportError:
    from airflow.exceptions import AirflowNotFoundException  # type: ignore[attr-defined] # before Airflow 3.2

log = logging.getLogger(__name__)

__all__ = ["AirflowNotFoundException", "airflow_errors", "for_airflow", "log_error"]

LINES = 100
"""Faults of one error that are logged at most."""


def _failing(cls: type[FluxError]) -> type[FluxError]:
    return type(cls.__name__, (cls, AirflowFailException), {"__doc__": cls.__doc__, "__module__": cls.__module__})


def for_airflow(error: FluxError, retry: str = "") -> FluxError:
    """Return ``error`` as a task should raise it.

    It keeps its class, and is an ``AirflowFailException`` too if a retry cannot help.

    :param retry: One sentence that says what a retry of this task does.
    """
    cls = type(error)
    if not error.retryable and not issubclass(cls, AirflowFailException):
        cls = _failing(cls)
    told = cls(error.what, job_id=error.job_id, money=error.money, retry_after=error.retry_after, faults=error.faults)
    told.retryable = error.retryable
    told.is_logged = error.is_logged
    if retry:
        told.args = (f"{told} {retry}",)
    return told


def log_error(error: FluxError, retry: str = "") -> None:
    """Log ``error`` in full, as ERROR: a line for each fault, then one for the money and what to do.

    :param retry: One sentence that says what a retry of this task does.
    """
    for fault in error.faults[:LINES]:
        log.error("%s", fault)
    if (more := len(error.faults) - LINES) > 0:
        log.error("... and %d more.", more)
    log.error("%s", " ".join(part for part in (error.money, error.mend, retry) if part))


@contextlib.contextmanager
def airflow_errors(retry: Callable[[FluxError], str] = lambda error: "", *, is_logged: bool = True) -> Iterator[None]:
    """Raise FLUX errors of the block as :func:`for_airflow` makes them, and log each once before.

    Airflow shows an exception's message as one unwrapped line, and below it the frames and messages of all that
    caused it. The message names the cause; the cause itself may hold a signed URL, and is left out.

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
