"""FLUX errors as Airflow treats them: one that a retry cannot mend fails the task for good."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_flux.client.errors import FluxError


def _failing(cls: type[FluxError]) -> type[FluxError]:
    return type(cls.__name__, (cls, AirflowFailException), {"__doc__": cls.__doc__, "__module__": cls.__module__})


def for_airflow(error: FluxError, retry: str = "") -> FluxError:
    """Return ``error`` as a task should raise it.

    It keeps its class, and is an ``AirflowFailException`` too if a retry cannot mend it.

    :param retry: One sentence that says what a retry of this task does.
    """
    cls = type(error)
    if not error.retryable and not issubclass(cls, AirflowFailException):
        cls = _failing(cls)
    told = cls(error.what, job_id=error.job_id, money=error.money, retry_after=error.retry_after)
    told.retryable = error.retryable
    if retry:
        told.args = (f"{told} {retry}",)
    return told


@contextlib.contextmanager
def airflow_errors(retry: Callable[[FluxError], str] = lambda error: "") -> Iterator[None]:
    """Raise FLUX errors of the block as :func:`for_airflow` makes them.

    :param retry: Gives the sentence that says what a retry does after that error.
    """
    try:
        yield
    except FluxError as error:
        raise for_airflow(error, retry(error)) from error.__cause__
