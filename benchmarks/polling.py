"""How many polls the learning schedule needs, next to a fixed interval that notices as soon on average.

Simulated with the product's own Poller: no I/O, a clock that jumps. Durations are log-normal.
"""

from __future__ import annotations

import math
import random
from statistics import fmean

from airflow_provider_flux.client.answers import Result, State
from airflow_provider_flux.client.durations import Durations
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.polling import Poller

SPREADS = {0.15: 0.35, 0.3: 0.55, 0.6: 0.85}
"""Spread of the durations' logarithm -> goal: most polls, as a share of the fixed interval's."""
MEDIANS = (3, 6, 30, 100)

_JOB = Job("job", submitted_at=0.0)
_PENDING = Result(_JOB, "Pending", State.WAITING)
_READY = Result(_JOB, "Ready", State.READY, sample="https://delivery/image.png")


def draw(median: float, spread: float, count: int) -> list[float]:
    """Return the seconds that ``count`` jobs take."""
    return [median * math.exp(random.gauss(0, spread)) for _ in range(count)]


def wait(takes: float, durations: Durations) -> tuple[int, float]:
    """Wait for one job; return the polls, and the seconds between ready and noticed."""
    poller, now = Poller(_JOB, math.inf, None, 0.0, durations), 0.0
    while True:
        now += poller.delay(now)
        if poller.feed(_READY if now >= takes else _PENDING, now):
            return poller.polls, now - takes


def fixed_polls(jobs: list[float], delay: float) -> float:
    """Return the mean polls at the fixed interval whose mean delay between ready and noticed is ``delay``."""
    low, high = 0.001, 1000.0
    for _ in range(40):
        interval = (low + high) / 2
        late = fmean(math.ceil(takes / interval) * interval - takes for takes in jobs)
        low, high = (interval, high) if late < delay else (low, interval)
    return fmean(math.ceil(takes / low) for takes in jobs)


def warm(median: float, spread: float, count: int = 2000) -> tuple[float, float, float]:
    """Return polls, delay, and the share of a fixed interval's polls, once a hundred jobs have been seen."""
    durations = Durations()
    for takes in draw(median, spread, 100):
        wait(takes, durations)
    jobs = draw(median, spread, count)
    return _compare(jobs, [wait(takes, durations) for takes in jobs])


def cold(median: float, spread: float, count: int = 2000) -> tuple[float, float, float]:
    """Return the same for the first job of a process that knows nothing of its model."""
    jobs = draw(median, spread, count)
    return _compare(jobs, [wait(takes, Durations()) for takes in jobs])


def _compare(jobs: list[float], waits: list[tuple[int, float]]) -> tuple[float, float, float]:
    polls, delay = fmean(polls for polls, _ in waits), fmean(delay for _, delay in waits)
    return polls, delay, polls / fixed_polls(jobs, delay)
