"""Wait in the triggerer for room at the API: the account has as many active jobs as it may have (HTTP 429)."""

from __future__ import annotations

import random
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple

from airflow.providers.common.compat.sdk import TaskDeferred

from airflow_provider_flux.execution.deferral import DEFERRAL_MARGIN, resume_delay
from airflow_provider_flux.triggers.pause import PauseTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_provider_flux.exceptions import FluxRateLimitError


class Queued(NamedTuple):
    """How long a task has been waiting for room.

    :param give_up: Unix time in seconds at which it waits no longer.
    :param refusals: How often it was refused before.
    """

    give_up: float
    refusals: int = 0

    @classmethod
    def read(cls, event: dict[str, Any] | None) -> Queued | None:
        """Return what the trigger's event says; None if it says nothing that can be understood."""
        give_up, refusals = ((event or {}).get(name) for name in cls._fields)
        if isinstance(give_up, (int, float)) and isinstance(refusals, int):
            return cls(give_up, refusals)
        return None


def defer_submit(operator: BaseOperator, error: FluxRateLimitError, queued: Queued) -> None:
    """Defer ``operator`` to ``execute_queued``, which submits again; return if it has waited long enough."""
    now = time.time()
    # Jobs end at any time, and others wait too: ask at moments of one's own.
    wait = max(error.retry_after or 0.0, resume_delay(), min(60.0, 5.0 * 2**queued.refusals) * random.uniform(0.5, 1.5))  # noqa: S311 - jitter
    if now + wait > queued.give_up:
        return
    operator.log.info("%s Submitting again in %.0f s; until then no worker is held.", error, wait)
    raise TaskDeferred(
        trigger=PauseTrigger(now + wait, Queued(queued.give_up, queued.refusals + 1)._asdict()),
        method_name="execute_queued",
        timeout=timedelta(seconds=wait + DEFERRAL_MARGIN),
    )
