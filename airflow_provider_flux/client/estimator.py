"""How long a model's jobs take, estimated from those that this process has seen, and so when to poll them.

Durations are modelled as log-normal: only the mean and the variance of their logarithms are kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from airflow_provider_flux.client.catalogue.models import MODELS

TYPICAL_SECONDS = 6.0
"""Expected duration of a job of an unknown model, in seconds."""
RECENT_SECONDS = 600.0
"""Jobs within this time count alike: when many start together, the shortest ones are seen first."""
MIN_WEIGHT = 30
"""Weight, in jobs, below which earlier jobs are not discounted further."""
MIN_POLL_INTERVAL, MAX_POLL_INTERVAL = 0.1, 15.0
"""Bounds of the seconds between two polls."""

# Without data, half or twice the typical duration is unsurprising. The prior has the weight of half a job.
_PRIOR_SPREAD, _PRIOR_WEIGHT = 0.8, 0.5
_MIN_SPREAD = 0.1


class Schedule(NamedTuple):
    """When to poll one job; ages are in seconds since its submit.

    :param first_poll_after: Age at which the first poll is likely enough to find the job ready.
    :param interval: Seconds between polls from then on.
    :param slow_down_after: Age that very few jobs reach; from then on the intervals grow.
    """

    first_poll_after: float
    interval: float
    slow_down_after: float

    def interval_at(self, age: float) -> float:
        """Return the seconds from a poll at ``age`` to the next one."""
        return min(MAX_POLL_INTERVAL, self.interval * max(1.0, age / self.slow_down_after))


class DurationEstimator:
    """Estimates how long one model's jobs take, and schedules their polls.

    The first poll comes when one job in seven has finished, the next ones at a third of the spread. For
    log-normal durations that is close to the minimum number of polls for a given mean delay between ready and
    noticed, which spaces them by sqrt(2 / (lambda h(t))) for a hazard rate h(t).

    :param typical_seconds: Expected duration until jobs have been seen.
    """

    def __init__(self, typical_seconds: float = TYPICAL_SECONDS) -> None:
        # Mean and variance of the logarithms, the weight of the jobs behind them, and when the last one was seen.
        # Replaced as a whole, so that any number of threads may read and write it.
        self._state = (math.log(typical_seconds), _PRIOR_SPREAD**2, _PRIOR_WEIGHT, 0.0)

    def add(self, seconds: float, now: float) -> None:
        """Add the duration of one job.

        :param seconds: How long the job took.
        :param now: Unix time in seconds at which it was found ready.
        """
        mean, variance, weight, last_seen = self._state
        weight = max(min(weight, MIN_WEIGHT), weight * math.exp(-max(0.0, now - last_seen) / RECENT_SECONDS))
        share, deviation = 1 / (weight + 1), math.log(max(seconds, 0.01)) - mean
        self._state = (mean + share * deviation, (1 - share) * (variance + share * deviation**2), weight + 1, now)

    def schedule(self) -> Schedule:
        """Return when to poll a job, by what is known now."""
        mean, variance, *_ = self._state
        spread = max(_MIN_SPREAD, math.sqrt(variance))
        interval = max(MIN_POLL_INTERVAL, math.exp(mean) * spread / 3)
        return Schedule(math.exp(mean - 1.1 * spread), interval, math.exp(mean + 5 * spread))


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
