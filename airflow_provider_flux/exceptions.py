"""FLUX errors as Airflow treats them: one that a retry cannot mend fails the task for good."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_flux.client.errors import FluxError, FluxUncertainSubmitError


def _failing(cls: type[FluxError]) -> type[FluxError]:
    return type(cls.__name__, (cls, AirflowFailException), {"__doc__": cls.__doc__, "__module__": cls.__module__})


def for_airflow(error: FluxError, retry: str = "") -> FluxError:
    """Return ``error`` as a task should raise it.

    It keeps its class, and is an ``AirflowFailException`` too if a retry cannot mend it.

    :param retry: One sentence that says what a retry of this task does once a job was paid for.
    """
    cls = type(error)
    if not error.retryable and not issubclass(cls, AirflowFailException):
        cls = _failing(cls)
    told = cls(error.what, job_id=error.job_id, money=error.money, retry_after=error.retry_after)
    if retry and error.retryable:
        perhaps_paid = error.job_id is not None or isinstance(error, FluxUncertainSubmitError)
        told.args = (f"{told} {retry if perhaps_paid else 'A retry of this task tries again.'}",)
    return told


@contextlib.contextmanager
def airflow_errors(retry: str = "") -> Iterator[None]:
    """Raise FLUX errors of the block as :func:`for_airflow` makes them."""
    try:
        yield
    except FluxError as error:
        raise for_airflow(error, retry) from error.__cause__
