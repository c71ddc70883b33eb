"""The duration estimates, and that polling by them takes few polls: simulated, by a clock that jumps."""

from __future__ import annotations

import math
import random
from statistics import fmean

import pytest

from airflow_provider_flux.client.estimator import (
    MAX_FIRST_POLL_AFTER,
    MAX_INTERVAL_SHARE,
    MAX_POLL_INTERVAL,
    MIN_POLL_INTERVAL,
    TYPICAL_SECONDS,
    DurationEstimator,
    estimator_for,
)
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.polling import Poller
from airflow_provider_flux.client.responses import JobState, Result
from airflow_provider_flux.exceptions import FluxServiceError
from benchmarks.polling import (
    COLD_SHARE,
    MEDIANS,
    SPREADS,
    cold,
    cold_share,
    draw,
    outdated,
    wait,
    wait_at_once,
    wait_for_all,
    warm,
)

JOB = Job("abc", submitted_at=1000.0)
PENDING = Result(JOB, "Pending", JobState.PENDING)
READY = Result(JOB, "Ready", JobState.READY, "https://d/x")


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(1)


def estimator_of(*seconds: float) -> DurationEstimator:
    estimator = DurationEstimator()
    for each in seconds:
        estimator.add_ready(each)
    return estimator


@pytest.mark.parametrize("median", MEDIANS)
@pytest.mark.parametrize(("spread", "goal"), SPREADS.items())
def test_warm_estimator_takes_fewer_polls_than_a_fixed_interval(median: float, spread: float, goal: float) -> None:
    polls, _, share = warm(median, spread)
    assert share <= goal
    assert polls < 8


def test_cold_estimator_takes_fewer_polls_than_one_fixed_interval_for_all_durations() -> None:
    waits = [each for median in MEDIANS for spread in SPREADS for each in cold(median, spread, 500)]
    assert cold_share(waits) <= COLD_SHARE


@pytest.mark.parametrize("spread", SPREADS)
def test_waits_in_flight_learn_that_jobs_take_far_longer_than_before(spread: float) -> None:
    polls, delay = outdated(14, spread)
    assert polls <= 8
    assert delay <= 0.2


def test_waits_in_flight_learn_from_the_first_that_end() -> None:
    jobs = draw(60, 0.15, 1000)
    alone = [wait(takes, DurationEstimator()) for takes in jobs]
    together = wait_at_once(jobs, DurationEstimator())
    assert sum(polls for polls, _ in together) < 0.9 * sum(polls for polls, _ in alone)


@pytest.mark.parametrize(("takes", "most"), [(0.7, 6), (2, 9), (14, 20), (60, 32), (500, 70)])
def test_job_that_takes_longer_than_all_before_is_noticed_within_a_share_of_its_duration(
    takes: float, most: int
) -> None:
    for _ in range(20):
        polls, delay = wait(takes, estimator_of(*[0.5] * 100))
        assert delay <= 1.1 * min(MAX_INTERVAL_SHARE * takes, MAX_POLL_INTERVAL)  # 1.1: the jitter
        assert polls <= most


def test_first_poll_comes_while_the_image_can_be_downloaded() -> None:
    """As after an outage in which no job became ready: the jobs after it may take a few seconds again."""
    estimator = DurationEstimator()
    for _ in range(10_000):
        estimator.add_pending(0.0, 1800.0)
    assert estimator.first_poll_after() == MAX_FIRST_POLL_AFTER


@pytest.mark.parametrize(("before", "after"), [(30, 3), (3, 30)])
def test_estimate_follows_a_change_of_the_service(before: float, after: float) -> None:
    estimator = DurationEstimator()
    waits = wait_for_all([*draw(before, 0.15, 100), *draw(after, 0.15, 300)], estimator)
    assert estimator.first_poll_after() == pytest.approx(after, rel=0.3)
    assert sum(polls for polls, _ in waits[-100:]) < 800


def test_estimate_is_the_same_for_simultaneous_and_sequential_jobs() -> None:
    together, apart = [], []
    for _ in range(5):  # one estimate rests on the latest jobs, and errs by a tenth
        jobs, at_once, in_turn = draw(14, 0.3, 500), DurationEstimator(), DurationEstimator()
        wait_at_once(jobs, at_once)
        wait_for_all(jobs, in_turn)
        together.append(at_once.first_poll_after())
        apart.append(in_turn.first_poll_after())
    assert fmean(together) == pytest.approx(fmean(apart), rel=0.2)


def test_polls_slow_down_for_a_job_that_takes_longer_than_any_other() -> None:
    estimator = estimator_of(*draw(6, 0.3, 100))
    assert estimator.interval_at(7) < estimator.interval_at(30) < estimator.interval_at(60)
    assert estimator.interval_at(1e6) == estimator.interval_at(1e300) == MAX_POLL_INTERVAL
    assert estimator_of(*[0.2] * 100).interval_at(0.1) == MIN_POLL_INTERVAL


def test_job_that_may_be_ready_is_polled_at_once() -> None:
    estimator = estimator_of(*[20.0] * 30)
    assert Poller(JOB, math.inf, None, 1060.0, estimator).delay(1060.0) == 0  # a restart, a late retry
    assert Poller(JOB, math.inf, 30.0, 1060.0).delay(1060.0) == 0
    assert Poller(Job("abc"), math.inf, None, 1000.0, estimator).delay(1000.0) == 0  # of unknown age


def test_triggerer_continues_the_worker_s_schedule() -> None:
    estimator = estimator_of(*[20.0] * 30)
    assert 5 < Poller(JOB, math.inf, None, 1006.0, estimator).delay(1006.0) < 14
    assert Poller(JOB, math.inf, 10.0, 1006.0).delay(1006.0) == pytest.approx(4)


def test_slow_clock_does_not_delay_the_first_poll() -> None:
    assert Poller(JOB, math.inf, None, 0.0).delay(0.0) <= TYPICAL_SECONDS


def test_only_a_known_duration_is_learned() -> None:
    def first_poll_after(*responses: tuple[float, Result | FluxServiceError], began: float = 1000.0) -> float:
        estimator = DurationEstimator()
        poller = Poller(JOB, math.inf, None, began, estimator)
        for now, response in responses:
            poller.on_response(response, now)
        return estimator.first_poll_after()

    unchanged = DurationEstimator().first_poll_after()
    assert first_poll_after((5000.0, READY), began=5000.0) == unchanged  # it may have been ready for an hour
    pending = first_poll_after((1002.0, PENDING))
    assert first_poll_after((1002.0, PENDING), (1500.0, FluxServiceError("HTTP 500")), (5000.0, READY)) == pending
    assert first_poll_after((1040.0, PENDING), (1041.0, READY)) == pytest.approx(estimator_of(40.5).first_poll_after())


def test_estimator_is_shared_per_api_and_model() -> None:
    assert estimator_for("https://a", "flux-dev") is estimator_for("https://a", "flux-dev")
    assert estimator_for("https://a", "flux-dev") is not estimator_for("https://b", "flux-dev")
    assert estimator_for("https://a", "flux-dev") is not estimator_for("https://a", None)
