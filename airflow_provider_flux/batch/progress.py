"""The progress of a batch in the task's log: a line for each tenth of the images, and one every few seconds."""

from __future__ import annotations

import logging
import time
from collections import Counter
from typing import TYPE_CHECKING

from airflow_provider_flux.client.catalogue.prices import format_cost

if TYPE_CHECKING:
    from airflow_provider_flux.batch.budget import Budget
    from airflow_provider_flux.batch.limiter import AdaptiveLimiter

log = logging.getLogger(__name__)

LOG_INTERVAL = 10.0
"""Minimum seconds between two lines within the same tenth."""


class Progress:
    """Counts the images of a batch that have ended, and logs the progress.

    :param total: Images in the batch.
    :param limiter: Knows the jobs in flight.
    :param budget: Knows the credits billed.
    """

    def __init__(self, total: int, limiter: AdaptiveLimiter, budget: Budget) -> None:
        self._total = total
        self._limiter = limiter
        self._budget = budget
        self._started_at = self._logged_at = time.monotonic()
        self._logged_tenth = 0
        self._max_in_flight = 1
        self._states: Counter[str] = Counter()
        self._reused = 0

    def count(self, state: str, is_reused: bool) -> None:
        """Count an image that has ended.

        :param state: Its state in the manifest.
        :param is_reused: Whether it was stored already; such images do not count for the rate of the others.
        """
        self._states[state] += 1
        self._reused += is_reused

    def log_if_due(self) -> None:
        """Log the progress if another tenth has ended, or the last line is old enough."""
        done, now = self._states.total(), time.monotonic()
        self._max_in_flight = max(self._max_in_flight, self._limiter.active)
        tenth = 10 * done // self._total
        if tenth == self._logged_tenth and now - self._logged_at < LOG_INTERVAL:
            return
        self._logged_tenth, self._logged_at = tenth, now
        log.info("%s", self._line(done, now - self._started_at))

    def _line(self, done: int, elapsed: float) -> str:
        failed = sum(self._states[state] for state in ("failed", "moderated"))
        refusals = self._limiter.refusals
        refused = f" (submits refused with HTTP 429: {refusals})" if refusals else ""
        line = (
            f"{done} of {self._total} done ({failed} failed or moderated), {self._limiter.active} in flight{refused}, "
            f"{format_cost(self._budget.billed)} billed so far"
        )
        if done == self._total:
            return f"{line}."
        ended = done - self._reused
        # Requests that are refused at once say nothing about how long an image takes.
        is_known = ended > failed
        images_per_second = rate(ended, self._limiter.active, self._max_in_flight, elapsed) if is_known else None
        if images_per_second is None:
            return f"{line}; remaining time unknown."
        remaining = (self._total - done - self._limiter.active / 2) / images_per_second
        return f"{line}; {images_per_second * 60:.1f} images per minute, about {_duration(remaining)} remaining."


def rate(done: int, in_flight: int, max_in_flight: int, elapsed: float) -> float | None:
    """Return the images per second; None while it cannot be estimated.

    Until as many images have ended as were ever in flight at once, their ends say nothing about the rate: the first
    one takes as long as if it were alone. After that, each image in flight counts as half, its average progress.

    :param done: Images that have ended, without those that were stored already.
    :param in_flight: Jobs in flight now.
    :param max_in_flight: Highest number of jobs in flight so far.
    :param elapsed: Seconds since the first submit.
    """
    if done < max_in_flight or elapsed <= 0:
        return None
    return (done + in_flight / 2) / elapsed


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min"
