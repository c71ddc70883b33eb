"""How far a batch has come, as lines in the task's log: one at each tenth, and one every few seconds at most."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import Any

log = logging.getLogger(__name__)

EVERY = 10.0
"""Seconds between two lines."""


class Progress:
    """Counts the ends of a batch's images and tells of them.

    :param total: Images in the batch.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._began = self._told = time.monotonic()
        self._tenth = 0
        self._states: Counter[str] = Counter()
        self._reused = 0

    def end(self, state: str, reused: bool) -> None:
        """Count an image's end.

        :param reused: It was there before, so it says nothing of how fast the others come.
        """
        self._states[state] += 1
        self._reused += reused

    def tell(self, in_flight: int, refusals: int, cost: float) -> None:
        """Say how far it has come, if it is time to.

        :param refusals: Submits for which the account had no room.
        """
        done, now = self._states.total(), time.monotonic()
        tenth = 10 * done // self._total
        if tenth == self._tenth and now - self._told < EVERY:
            return
        self._tenth, self._told = tenth, now
        log.info("%s", self._line(done, now - self._began, in_flight, refusals, cost))

    def _line(self, done: int, seconds: float, in_flight: int, refusals: int, cost: float) -> str:
        rate = (done - self._reused) / seconds if seconds > 0 else 0.0
        left: Any = f"about {_minutes((self._total - done) / rate)} left" if rate else "time left unknown"
        failed = sum(self._states[state] for state in ("failed", "moderated"))
        full = f" ({refusals} submits were refused: no room)" if refusals else ""
        return (
            f"{done} of {self._total} done ({failed} failed or moderated), {in_flight} in flight{full}, "
            f"{rate * 60:.1f} a minute, {cost:g} credits so far, {left}."
        )


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
