"""What this process has seen of how long a model's jobs take; it tells whoever waits when to look.

The time a job takes is taken to be log-normal: its logarithm has a mean and a spread, which are all that is kept.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from airflow_provider_flux.client.catalogue.models import MODELS

TYPICAL = 6.0
"""Seconds that a job of an unknown model is expected to take."""
RECENT = 600.0
"""Seconds within which all jobs count alike: of many that start together, the shortest are seen first."""
MEMORY = 30
"""As how many jobs all earlier ones count at least."""
CLOSEST, WIDEST = 0.1, 15.0
"""Bounds of the seconds between two polls."""

# Before anything was seen, half or twice the typical time is no surprise. That counts as half a job.
_PRIOR_SPREAD, _PRIOR_WEIGHT = 0.8, 0.5
_LEAST_SPREAD = 0.1


class Schedule(NamedTuple):
    """When to poll one job; ages are in seconds since its submit.

    :param first: Age at which the first poll is worth it.
    :param step: Seconds between polls from then on.
    :param late: Age that nearly no job reaches; from then on the polls widen.
    """

    first: float
    step: float
    late: float

    def spacing(self, age: float) -> float:
        """Return the seconds to the next poll after one at ``age``."""
        return min(WIDEST, self.step * max(1.0, age / self.late))


class DurationEstimator:
    """How long one model's jobs take, and so when to poll.

    The first poll comes when one job in seven has finished, the next ones at a third of the spread. For
    log-normal durations that is close to the least number of polls for a given mean delay between ready and
    noticed, which spaces them by sqrt(2 / (lambda h(t))) for a hazard rate h(t).

    :param typical: Seconds to expect until jobs have been seen.
    """

    def __init__(self, typical: float = TYPICAL) -> None:
        # Mean and variance of the logarithms, the jobs they stand for, and when the last one was seen. Replaced
        # as a whole, so that any number of threads may read and write it.
        self._state = (math.log(typical), _PRIOR_SPREAD**2, _PRIOR_WEIGHT, 0.0)

    def add(self, seconds: float, now: float) -> None:
        """Take in that a job that was ready by the Unix time ``now`` took ``seconds``."""
        mean, variance, jobs, at = self._state
        jobs = max(min(jobs, MEMORY), jobs * math.exp(-max(0.0, now - at) / RECENT))
        weight, off = 1 / (jobs + 1), math.log(max(seconds, 0.01)) - mean
        self._state = (mean + weight * off, (1 - weight) * (variance + weight * off**2), jobs + 1, now)

    def schedule(self) -> Schedule:
        """Return when to poll a job, as far as is known now."""
        mean, variance, *_ = self._state
        spread = max(_LEAST_SPREAD, math.sqrt(variance))
        step = max(CLOSEST, math.exp(mean) * spread / 3)
        return Schedule(math.exp(mean - 1.1 * spread), step, math.exp(mean + 5 * spread))


_MOST = 256
_seen: dict[tuple[str, str | None], DurationEstimator] = {}


def estimator_for(base_url: str, model: str | None) -> DurationEstimator:
    """Return what this process has seen of ``model`` at one API; shared by all who ask."""
    known = _seen.get((base_url, model))
    if known is None:
        if len(_seen) >= _MOST:
            _seen.clear()
        catalogued = MODELS.get(model or "")
        known = _seen.setdefault(
            (base_url, model), DurationEstimator(catalogued.typical_seconds if catalogued else TYPICAL)
        )
    return known
