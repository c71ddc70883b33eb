"""What this process has seen of how long a model's jobs take; it tells whoever waits when to look.

The time a job takes is taken to be log-normal: its logarithm has a mean and a spread, which are all that is kept.
"""

from __future__ import annotations

import math

from airflow_provider_flux.client.models import MODELS

TYPICAL = 6.0
"""Seconds that a job of an unknown model is expected to take."""
MEMORY = 30
"""Jobs after which an earlier one hardly counts any more."""
CLOSEST, WIDEST = 0.25, 15.0
"""Bounds of the seconds between two polls."""

# Before anything was seen, a third or three times the typical time is no surprise. That counts as half a job.
_PRIOR_SPREAD, _PRIOR_WEIGHT = 1.0, 0.5
_LEAST_SPREAD = 0.1


class Durations:
    """How long one model's jobs take, and so when to poll.

    The first poll comes when one job in seven has finished, the next ones at a quarter of the spread. For
    log-normal durations that is close to the least number of polls for a given mean delay between ready and
    noticed, which spaces them by sqrt(2 / (lambda h(t))) for a hazard rate h(t).

    :param typical: Seconds to expect until jobs have been seen.
    """

    def __init__(self, typical: float = TYPICAL) -> None:
        # Replaced as a whole, so that any number of threads may read and write it.
        self._state = (math.log(typical), _PRIOR_SPREAD**2, _PRIOR_WEIGHT)

    def add(self, seconds: float) -> None:
        """Take in that a job took ``seconds``."""
        mean, variance, jobs = self._state
        weight, off = 1 / (min(jobs, MEMORY) + 1), math.log(max(seconds, 0.01)) - mean
        self._state = (mean + weight * off, (1 - weight) * (variance + weight * off**2), jobs + 1)

    @property
    def first(self) -> float:
        """Seconds after the submit at which the first poll is worth it."""
        return self._quantile(-1.1)

    def spacing(self, age: float) -> float:
        """Return the seconds to the next poll of a job that was submitted ``age`` seconds ago.

        It widens with the age of a job that takes longer than nearly any other.
        """
        step = self._spread * self._quantile(0) / 4
        return min(WIDEST, max(CLOSEST, step) * max(1.0, age / self._quantile(4)))

    @property
    def _spread(self) -> float:
        return max(_LEAST_SPREAD, math.sqrt(self._state[1]))

    def _quantile(self, spreads: float) -> float:
        return math.exp(self._state[0] + spreads * self._spread)


_MOST = 256
_seen: dict[tuple[str, str | None], Durations] = {}


def durations_of(base_url: str, model: str | None) -> Durations:
    """Return what this process has seen of ``model`` at one API; shared by all who ask."""
    known = _seen.get((base_url, model))
    if known is None:
        if len(_seen) >= _MOST:
            _seen.clear()
        catalogued = MODELS.get(model or "")
        known = _seen.setdefault((base_url, model), Durations(catalogued.typical if catalogued else TYPICAL))
    return known
