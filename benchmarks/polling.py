"""How many polls the learning schedule needs, next to a fixed interval that notices as soon on average.

Simulated with the product's own Poller: no I/O, a clock that jumps. Durations are log-normal.
"""

from __future__ import annotations

import math
import random
from statistics import fmean

from airflow_provider_flux.client.estimator import TYPICAL_SECONDS, DurationEstimator
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.polling import Poller
from airflow_provider_flux.client.responses import JobState, Result
from benchmarks.harness import goal, report

SPREADS = {0.15: 0.35, 0.3: 0.55, 0.6: 0.85}
"""Spread of the durations' logarithm -> goal: most polls, as a share of the fixed interval's."""
MEDIANS = (3, 6, 30, 100)

_PENDING = Result(Job("job"), "Pending", JobState.PENDING)
_READY = Result(Job("job"), "Ready", JobState.READY, sample="https://delivery/image.png")


def draw(median: float, spread: float, count: int) -> list[float]:
    """Return the seconds that ``count`` jobs take."""
    return [median * math.exp(random.gauss(0, spread)) for _ in range(count)]


def wait(takes: float, durations: DurationEstimator, submitted: float = 0.0) -> tuple[int, float]:
    """Wait for one job; return the polls, and the seconds between ready and noticed."""
    poller, now = Poller(Job("job", submitted_at=submitted), math.inf, None, submitted, durations), submitted
    while True:
        now += poller.delay(now)
        if poller.on_response(_READY if now >= submitted + takes else _PENDING, now):
            return poller.polls, now - submitted - takes


def wait_for_all(jobs: list[float], durations: DurationEstimator) -> list[tuple[int, float]]:
    """Wait for jobs that are submitted a minute apart; return the polls and the delay of each."""
    return [wait(takes, durations, 60.0 * number) for number, takes in enumerate(jobs)]


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
    durations = DurationEstimator()
    wait_for_all(draw(median, spread, 100), durations)
    jobs = draw(median, spread, count)
    return _compare(jobs, wait_for_all(jobs, durations))


def cold(median: float, spread: float, count: int = 8000) -> tuple[float, float, float]:
    """Return the same for the first job of a process that knows nothing of its model."""
    jobs = draw(median, spread, count)
    return _compare(jobs, [wait(takes, DurationEstimator()) for takes in jobs])


def _compare(jobs: list[float], waits: list[tuple[int, float]]) -> tuple[float, float, float]:
    polls, delay = fmean(polls for polls, _ in waits), fmean(delay for _, delay in waits)
    return polls, delay, polls / fixed_polls(jobs, delay)


def main() -> None:
    random.seed(1)
    rows, shares = [], dict.fromkeys(SPREADS, 0.0)
    cold_shares: list[float] = []
    for median in MEDIANS:
        for spread in SPREADS:
            warm_polls, warm_delay, warm_share = warm(median, spread)
            cold_polls, cold_delay, cold_share = cold(median, spread)
            rows.append(
                [
                    f"{median} s",
                    spread,
                    *(f"{warm_polls:.1f}", f"{warm_delay:.2f} s", f"{warm_share:.2f}"),
                    *(f"{cold_polls:.1f}", f"{cold_delay:.2f} s", f"{cold_share:.2f}"),
                ]
            )
            shares[spread] = max(shares[spread], warm_share)
            cold_shares.append(cold_share)
    report(
        "Polling",
        "Simulated with the product's poller and log-normal durations. The share is of the polls of that fixed\n"
        "interval which has the same mean delay between ready and noticed. Warm: the process has seen a hundred jobs.\n"
        f"Cold: it has seen none, and expects {TYPICAL_SECONDS:g} s.",
        ["median", "spread", "polls, warm", "delay", "share", "polls, cold", "delay", "share"],
        rows,
        *(goal(f"Warm, spread {spread}, the largest share", shares[spread], most) for spread, most in SPREADS.items()),
        goal("Cold, the largest share (its jitter costs 0.3 %, the sample errs by 1 %)", max(cold_shares), 1.02),
    )


if __name__ == "__main__":
    main()
