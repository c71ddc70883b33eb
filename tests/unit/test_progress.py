"""The progress of a batch: the remaining time in simulated batches whose end is known, and the lines in the log."""

from __future__ import annotations

import heapq

import pytest

from airflow_provider_flux.batch.budget import Budget
from airflow_provider_flux.batch.limiter import AdaptiveLimiter
from airflow_provider_flux.batch.progress import Progress, rate


def simulate(total: int, max_active: int, latency: float, interval: float) -> list[tuple[float, int, int]]:
    """Return for each job that ends: the time, how many jobs have ended, how many are in flight.

    :param max_active: Maximum number of jobs in flight.
    :param latency: Seconds that each job takes.
    :param interval: Seconds between two submits.
    """
    in_flight: list[float] = []
    ends: list[tuple[float, int, int]] = []
    submitted, now = 0, 0.0
    while len(ends) < total:
        if submitted < total and len(in_flight) < max_active:
            now = max(now, submitted * interval)
            while in_flight and in_flight[0] <= now:
                ends.append((heapq.heappop(in_flight), len(ends) + 1, len(in_flight)))
            heapq.heappush(in_flight, now + latency)
            submitted += 1
        else:
            now = heapq.heappop(in_flight)
            ends.append((now, len(ends) + 1, len(in_flight)))
    return ends


@pytest.mark.parametrize("max_active", [1, 4, 24])
@pytest.mark.parametrize("interval", [0.0, 0.5, 2.0])
def test_the_remaining_time_is_right_within_a_factor_of_two(max_active: int, interval: float) -> None:
    total, latency = 200, 12.0
    ends = simulate(total, max_active, latency, interval)
    max_in_flight, estimates = 1, 0
    for now, done, in_flight in ends[:-1]:
        max_in_flight = max(max_in_flight, in_flight)
        images_per_second = rate(done, in_flight, max_in_flight, now)
        if images_per_second is None:
            continue
        estimates += 1
        estimate, actual = (total - done - in_flight / 2) / images_per_second, ends[-1][0] - now
        # The latency of a single job cannot be estimated better.
        assert actual / 2 - latency <= estimate <= actual * 2 + latency
    assert estimates > total / 2


def test_the_rate_is_unknown_until_as_many_have_ended_as_were_in_flight() -> None:
    assert rate(1, 23, 24, 12.0) is None
    assert rate(23, 1, 24, 12.5) is None
    assert rate(24, 24, 24, 13.0) == pytest.approx(36 / 13)
    assert rate(0, 0, 0, 0.0) is None


def test_one_line_is_logged_for_each_tenth(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    progress = Progress(100, AdaptiveLimiter(24, patience=60), Budget(None))
    for number in range(100):
        progress.count("failed" if number == 7 else "stored", is_reused=False)
        progress.log_if_due()
    assert len(caplog.messages) == 10
    first, last = caplog.messages[0], caplog.messages[-1]
    assert first.startswith("10 of 100 done (1 failed or moderated), 0 in flight, 0 credits ($0.00) billed so far; ")
    assert first.endswith(" remaining.")
    assert last == "100 of 100 done (1 failed or moderated), 0 in flight, 0 credits ($0.00) billed so far."


@pytest.mark.parametrize(("state", "is_reused"), [("stored", True), ("failed", False)])
def test_the_remaining_time_is_unknown_before_an_image_is_generated(
    caplog: pytest.LogCaptureFixture, state: str, is_reused: bool
) -> None:
    caplog.set_level("INFO")
    progress = Progress(10, AdaptiveLimiter(24, patience=60), Budget(None))
    progress.count(state, is_reused)
    progress.log_if_due()
    assert caplog.messages[0].endswith("; remaining time unknown.")
