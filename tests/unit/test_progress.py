"""How long a batch still takes, told from simulated batches whose end is known."""

from __future__ import annotations

import heapq

import pytest

from airflow_provider_flux.batch.progress import rate


def simulate(total: int, places: int, latency: float, between: float) -> list[tuple[float, int, int]]:
    """Return at each end of a job: the time, how many have ended, how many are in flight.

    :param places: Jobs in flight at most.
    :param latency: Seconds that each job takes.
    :param between: Seconds between two submits.
    """
    flying: list[float] = []
    ends: list[tuple[float, int, int]] = []
    submitted, now = 0, 0.0
    while len(ends) < total:
        if submitted < total and len(flying) < places:
            now = max(now, submitted * between)
            while flying and flying[0] <= now:
                ends.append((heapq.heappop(flying), len(ends) + 1, len(flying)))
            heapq.heappush(flying, now + latency)
            submitted += 1
        else:
            now = heapq.heappop(flying)
            ends.append((now, len(ends) + 1, len(flying)))
    return ends


@pytest.mark.parametrize("places", [1, 4, 24])
@pytest.mark.parametrize("between", [0.0, 0.5, 2.0])
def test_the_time_left_is_never_wrong_by_more_than_two(places: int, between: float) -> None:
    total, latency = 200, 12.0
    ends = simulate(total, places, latency, between)
    most, told = 1, 0
    for now, done, in_flight in ends[:-1]:
        most = max(most, in_flight)
        pace = rate(done, in_flight, most, now)
        if pace is None:
            continue
        told += 1
        left, truth = (total - done - in_flight / 2) / pace, ends[-1][0] - now
        # A job's own time is what cannot be known better.
        assert truth / 2 - latency <= left <= truth * 2 + latency
    assert told > total / 2


def test_nothing_is_said_of_the_time_left_until_as_many_have_ended_as_were_in_flight() -> None:
    assert rate(1, 23, 24, 12.0) is None
    assert rate(23, 1, 24, 12.5) is None
    assert rate(24, 24, 24, 13.0) == pytest.approx(36 / 13)
    assert rate(0, 0, 0, 0.0) is None
