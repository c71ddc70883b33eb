"""How many polls the learning schedule needs, next to a fixed interval that notices as soon on average.

A process that has seen no job does not know the scale of their durations, and a fixed interval must not either: there,
one interval for all scales is compared, and a delay counts as a share of the job's duration.

Simulated with the product's own Poller: no I/O, a clock that jumps. Durations are log-normal.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Sequence
from operator import truediv
from statistics import fmean

from airflow_provider_flux.client.estimator import TYPICAL_SECONDS, DurationEstimator
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.polling import Poller
from airflow_provider_flux.client.responses import JobState, Result
from benchmarks.harness import goal, report

SPREADS = {0.15: 0.35, 0.3: 0.55, 0.6: 0.85}
"""Spread of the durations' logarithm -> goal: most polls, as a share of the fixed interval's."""
MEDIANS = (3, 6, 30, 100)
COLD_SHARE = 0.7
"""Goal: most polls of a process that has seen no job, as a share of the fixed interval's."""
OUTDATED = 0.5
"""Seconds of the jobs that a process has seen before those that take longer."""

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


def wait_at_once(jobs: list[float], durations: DurationEstimator, late: float = 0.0) -> list[tuple[int, float]]:
    """Wait for jobs that are submitted together, as triggers do; return the polls and the delay of each.

    :param late: Seconds after the submit at which the waits start; before that, there is no delay.
    """
    pollers = [Poller(Job("job", submitted_at=0.0), math.inf, None, late, durations) for _ in jobs]
    due = [(late + poller.delay(late), number) for number, poller in enumerate(pollers)]
    heapq.heapify(due)
    waits = {}
    while due:
        now, number = heapq.heappop(due)
        poller, takes = pollers[number], jobs[number]
        if poller.on_response(_READY if now >= takes else _PENDING, now):
            waits[number] = (poller.polls, now - max(takes, late))
        else:
            heapq.heappush(due, (now + poller.delay(now), number))
    return [waits[number] for number in range(len(jobs))]


def fixed_polls(jobs: list[float], delay: float, scales: Sequence[float] | None = None) -> float:
    """Return the mean polls at the fixed interval whose mean delay between ready and noticed is ``delay``.

    :param scales: What the delay of each job is divided by; None: nothing.
    """
    low, high = 0.001, 1000.0
    for _ in range(40):
        interval = (low + high) / 2
        delays = [math.ceil(takes / interval) * interval - takes for takes in jobs]
        late = _mean_delay(delays, scales)
        low, high = (interval, high) if late < delay else (low, interval)
    return fmean(math.ceil(takes / low) for takes in jobs)


def _mean_delay(delays: list[float], scales: Sequence[float] | None) -> float:
    return fmean(delays) if scales is None else fmean(map(truediv, delays, scales))


def warm(median: float, spread: float, count: int = 2000) -> tuple[float, float, float]:
    """Return polls, delay, and the share of a fixed interval's polls, once a hundred jobs have been seen."""
    durations = DurationEstimator()
    wait_for_all(draw(median, spread, 100), durations)
    jobs = draw(median, spread, count)
    waits = wait_for_all(jobs, durations)
    polls, delay = fmean(polls for polls, _ in waits), fmean(delay for _, delay in waits)
    return polls, delay, polls / fixed_polls(jobs, delay)


def cold(median: float, spread: float, count: int = 2000) -> list[tuple[float, int, float]]:
    """Return duration, polls and delay of jobs, each the first of a process that knows nothing of its model."""
    return [(takes, *wait(takes, DurationEstimator())) for takes in draw(median, spread, count)]


def cold_share(waits: list[tuple[float, int, float]]) -> float:
    """Return the share of a fixed interval's polls, at the same delay relative to the duration."""
    jobs, polls, delays = (list(column) for column in zip(*waits, strict=True))
    return fmean(polls) / fixed_polls(jobs, _mean_delay(delays, jobs), jobs)


def outdated(median: float, spread: float, count: int = 1000) -> tuple[float, float]:
    """Return polls and relative delay of jobs that run at once, when far shorter ones have been seen before."""
    durations = DurationEstimator()
    wait_for_all([OUTDATED] * 100, durations)
    jobs = draw(median, spread, count)
    waits = wait_at_once(jobs, durations, late=3.0)
    return fmean(polls for polls, _ in waits), _mean_delay([delay for _, delay in waits], jobs)


def main() -> None:
    random.seed(1)
    rows, shares = [], dict.fromkeys(SPREADS, 0.0)
    first_waits: list[tuple[float, int, float]] = []
    for median in MEDIANS:
        for spread in SPREADS:
            warm_polls, warm_delay, warm_share = warm(median, spread)
            first = cold(median, spread)
            outdated_polls, outdated_delay = outdated(median, spread)
            rows.append(
                [
                    f"{median} s",
                    spread,
                    *(f"{warm_polls:.1f}", f"{warm_delay:.2f} s", f"{warm_share:.2f}"),
                    *(f"{fmean(polls for _, polls, _ in first):.1f}", f"{fmean(late for *_, late in first):.2f} s"),
                    *(f"{outdated_polls:.1f}", f"{outdated_delay:.0%}"),
                ]
            )
            shares[spread] = max(shares[spread], warm_share)
            first_waits += first
    report(
        "Polling",
        "Simulated with the product's poller and log-normal durations. The share is of the polls of that fixed\n"
        "interval which has the same mean delay between ready and noticed. Warm: the process has seen a hundred jobs.\n"
        f"Cold: it has seen none, and expects {TYPICAL_SECONDS:g} s. Outdated: it has seen a hundred jobs of "
        f"{OUTDATED:g} s, and now waits\nfor 1,000 at once; the delay is a share of the duration.",
        ["median", "spread", "polls, warm", "delay", "share", "polls, cold", "delay", "polls, outdated", "delay"],
        rows,
        *(goal(f"Warm, spread {spread}, the largest share", shares[spread], most) for spread, most in SPREADS.items()),
        goal("Cold, the share over all durations", cold_share(first_waits), COLD_SHARE),
    )


if __name__ == "__main__":
    main()
