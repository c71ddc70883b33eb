"""Wait in the triggerer for capacity: the account has as many active jobs as it may have (HTTP 429)."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.execution.deferral import DEFERRAL_MARGIN, WaitOptions, resume_delay
from airflow_provider_flux.triggers.pause import PauseTrigger

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator

    from airflow_provider_flux.exceptions import FluxRateLimitError


@dataclass(frozen=True, slots=True)
class CapacityWait:
    """How long a task has been waiting for capacity.

    :param deadline: Unix time in seconds until which it may wait; None: it has not waited yet.
    :param refusals: How often it was refused before.
    """

    deadline: float | None = None
    refusals: int = 0

    @classmethod
    def from_event(cls, event: Any) -> CapacityWait:
        """Return the wait of a task that an earlier version deferred: its state is in the event."""
        deadline, refusals = (event.get(name) if isinstance(event, dict) else None for name in ("give_up", "refusals"))
        if isinstance(deadline, (int, float)) and isinstance(refusals, int):
            return cls(deadline, refusals)
        return cls()


def defer_until_capacity(
    operator: BaseOperator, error: FluxRateLimitError, waited: CapacityWait, options: WaitOptions
) -> None:
    """Defer ``operator`` to its ``execute_queued``; return if it has waited long enough.

    :param error: The refusal.
    """
    now = time.time()
    deadline = options.deadline(operator, None) if waited.deadline is None else waited.deadline
    # Jobs end at any time, and other tasks wait, too: each asks at a moment of its own.
    backoff = min(60.0, 5.0 * 2**waited.refusals) * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
    wait = max(error.retry_after or 0.0, resume_delay(), backoff)
    if now + wait > deadline:
        return
    operator.log.info("%s Submitting again in %.0f s; no worker is occupied until then.", error, wait)
    operator.defer(
        trigger=PauseTrigger(now + wait),
        method_name="execute_queued",
        kwargs={"deadline": deadline, "refusals": waited.refusals + 1},
        timeout=timedelta(seconds=wait + DEFERRAL_MARGIN),
    )
