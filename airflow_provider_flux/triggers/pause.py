"""PauseTrigger: lets a task wait, without a worker, until the account has capacity for another job."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent


class PauseTrigger(BaseTrigger):
    """Fire at a certain time.

    Airflow's own DateTimeTrigger wakes up and logs a line every second, which a thousand waiting tasks would feel.

    :param until: Unix time in seconds.
    """

    def __init__(self, until: float = 0.0, **unknown: Any) -> None:
        # Never raises, and accepts what other versions stored: an error here stops the whole triggerer.
        super().__init__()
        self.until = until
        self._earlier_state = unknown.get("told")  # what earlier versions passed on in the event

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, for Airflow's database."""
        return f"{type(self).__module__}.{type(self).__qualname__}", {"until": self.until}

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Sleep, then yield the one event."""
        await asyncio.sleep(max(0.0, self.until - time.time()))
        yield TriggerEvent(self._earlier_state)
