"""How long a model's jobs take, learned from every poll in this process, and so when to poll next.

For each age of a job the hazard rate is estimated: of the jobs that were pending at that age, how many became ready
there (a piecewise exponential survival model). So a response "pending" counts as much as "ready": jobs that take longer
than all before them change the schedule of every wait while they are still running.
"""

from __future__ import annotations

import math
from itertools import pairwise

from airflow_provider_flux.client.catalogue.models import MODELS

TYPICAL_SECONDS = 6.0
"""Expected duration of a job of an unknown model, in seconds."""
MIN_POLL_INTERVAL, MAX_POLL_INTERVAL = 0.1, 15.0
"""Bounds of the seconds between two polls."""
MAX_FIRST_POLL_AFTER = 120.0
"""Longest age in seconds at the first poll: jobs may be far faster than all before, and an image's URL expires."""
MAX_INTERVAL_SHARE = 0.4
"""Longest interval between two polls as a share of the job's age, and so of its duration."""

# A job is polled when one in five of those that were pending at its age is ready. For log-normal durations, that is
# close to the fewest polls for a given mean delay between ready and noticed.
_POLL_SHARE = 0.2
# Ages are divided at fixed ratios, from one at which nothing is ready to more than a day.
_SHORTEST_AGE, _RATIO, _CELLS = 0.05, 1.25, 65
# Jobs by which the rate at one age is known; older ones count less and less.
_MEMORY = 35
# Without data: a log-logistic distribution, in which half or twice the typical duration is unsurprising and an older
# job becomes ready at a constant rate of its age. It has the weight of half a job.
_PRIOR_SHAPE, _PRIOR_WEIGHT = 2.0, 0.5


class DurationEstimator:
    """Estimates how long one model's jobs take, and schedules their polls. Ages are in seconds since the submit.

    Threads may share it: an update that is lost only makes the estimate a little less exact.

    :param typical_seconds: Expected duration until jobs have been seen.
    """

    def __init__(self, typical_seconds: float = TYPICAL_SECONDS) -> None:
        cumulative = [math.log1p((_age(cell) / typical_seconds) ** _PRIOR_SHAPE) for cell in range(_CELLS + 1)]
        # For each cell of ages: the jobs that passed it while pending, and those that became ready in it.
        self._pending = [_PRIOR_WEIGHT] * _CELLS
        self._ready = [_PRIOR_WEIGHT * (end - start) for start, end in pairwise(cumulative)]

    def add_pending(self, since: float, age: float) -> None:
        """Add that a job is still pending.

        :param since: Age up to which that was added before.
        :param age: Its age now.
        """
        position, end = _position(since), _position(age)
        while position < end:
            cell = int(position)
            if self._pending[cell] > _MEMORY:
                self._pending[cell] *= 1 - 1 / _MEMORY
                self._ready[cell] *= 1 - 1 / _MEMORY
            self._pending[cell] += min(end, cell + 1) - position
            position = cell + 1

    def add_ready(self, age: float, pending_since: float = 0.0) -> None:
        """Add the duration of a job.

        :param age: Its age when it became ready.
        :param pending_since: Age up to which :meth:`add_pending` was called for it.
        """
        self.add_pending(pending_since, age)
        self._ready[int(_position(age))] += 1

    def first_poll_after(self) -> float:
        """Return the age at which the first poll is likely enough to find a job ready."""
        return min(MAX_FIRST_POLL_AFTER, self._next_poll_age(0.0))

    def interval_at(self, age: float) -> float:
        """Return the seconds from a poll that finds a job pending at ``age`` to the next one."""
        interval = self._next_poll_age(age) - age
        return max(MIN_POLL_INTERVAL, min(interval, MAX_INTERVAL_SHARE * age, MAX_POLL_INTERVAL))

    def _next_poll_age(self, age: float) -> float:
        """Return the age at which enough of the jobs that are pending at ``age`` are ready."""
        position, missing = _position(age), -math.log1p(-_POLL_SHARE)
        while position < _CELLS - 1:
            cell = int(position)
            rate = self._ready[cell] / self._pending[cell]
            expected = rate * (cell + 1 - position)
            if expected >= missing:
                return _age(position + missing / rate)
            position, missing = cell + 1, missing - expected
        return math.inf


def _age(position: float) -> float:
    return _SHORTEST_AGE * _RATIO**position


def _position(age: float) -> float:
    """Return where ``age`` is: the number of its cell, and how much of that has passed."""
    return min(_CELLS - 1.0, math.log(max(age, _SHORTEST_AGE) / _SHORTEST_AGE, _RATIO))


_MAX_ESTIMATORS = 256
_estimators: dict[tuple[str, str | None], DurationEstimator] = {}


def estimator_for(base_url: str, model: str | None) -> DurationEstimator:
    """Return this process's shared estimator for ``model`` at one API."""
    estimator = _estimators.get((base_url, model))
    if estimator is None:
        if len(_estimators) >= _MAX_ESTIMATORS:
            _estimators.clear()
        entry = MODELS.get(model or "")
        typical_seconds = entry.typical_seconds if entry else TYPICAL_SECONDS
        estimator = _estimators.setdefault((base_url, model), DurationEstimator(typical_seconds))
    return estimator
