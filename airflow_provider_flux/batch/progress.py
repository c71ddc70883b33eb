"""How far a batch has come, as lines in the task's log: one at each tenth, and one every few seconds at most."""

from __future__ import annotations

import logging
import time
from collections import Counter

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
        self._most = 1
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

        :param in_flight: Jobs that are accepted and have not come to their end.
        :param refusals: Submits for which the account had no room.
        """
        done, now = self._states.total(), time.monotonic()
        self._most = max(self._most, in_flight)
        tenth = 10 * done // self._total
        if tenth == self._tenth and now - self._told < EVERY:
            return
        self._tenth, self._told = tenth, now
        log.info("%s", self._line(done, now - self._began, in_flight, refusals, cost))

    def _line(self, done: int, seconds: float, in_flight: int, refusals: int, cost: float) -> str:
        failed = sum(self._states[state] for state in ("failed", "moderated"))
        full = f" ({refusals} submits were refused: no room)" if refusals else ""
        line = (
            f"{done} of {self._total} done ({failed} failed or moderated), {in_flight} in flight{full}, "
            f"{cost:g} credits so far"
        )
        if done == self._total:
            return f"{line}."
        pace = rate(done - self._reused, in_flight, self._most, seconds)
        if pace is None:
            return f"{line}, time left unknown."
        left = (self._total - done - in_flight / 2) / pace
        return f"{line}, {pace * 60:.1f} a minute, about {_minutes(left)} left."


def rate(done: int, in_flight: int, most: int, seconds: float) -> float | None:
    """Return how many images come in a second; None while that cannot be known.

    Until as many have ended as were ever in flight at once, ends say nothing: the first one comes as late as if it
    had been alone. From then on those in flight, which are halfway on average, count as half.

    :param done: Images that have ended, without those that were there before.
    :param in_flight: Jobs in flight now.
    :param most: Jobs that were in flight at once, at most.
    :param seconds: Time since the first submit.
    """
    if done < most or seconds <= 0:
        return None
    return (done + in_flight / 2) / seconds


def _minutes(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
