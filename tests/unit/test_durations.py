"""What is learnt of durations, and that polling by it needs few polls: simulated, by a clock that jumps."""

from __future__ import annotations

import math
import random

import pytest

from airflow_provider_flux.client.estimator import CLOSEST, TYPICAL, WIDEST, DurationEstimator, estimator_for
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.polling import Poller
from airflow_provider_flux.client.responses import JobState, Result
from airflow_provider_flux.exceptions import FluxServiceError
from benchmarks.polling import MEDIANS, SPREADS, cold, draw, wait_for_all, warm

JOB = Job("abc", submitted_at=1000.0)
PENDING = Result(JOB, "Pending", JobState.WAITING)
READY = Result(JOB, "Ready", JobState.READY, "https://d/x")


@pytest.fixture(autouse=True)
def _seed() -> None:
    random.seed(1)


def seen(*seconds: float) -> DurationEstimator:
    durations = DurationEstimator()
    for each in seconds:
        durations.add(each, 0.0)
    return durations


@pytest.mark.parametrize("median", MEDIANS)
@pytest.mark.parametrize(("spread", "goal"), SPREADS.items())
def test_warm_it_needs_a_share_of_the_polls_of_a_fixed_interval(median: float, spread: float, goal: float) -> None:
    polls, _, share = warm(median, spread)
    assert share <= goal
    assert polls < 8


@pytest.mark.parametrize("median", MEDIANS)
@pytest.mark.parametrize("spread", SPREADS)
def test_cold_it_never_needs_more_polls_than_a_fixed_interval(median: float, spread: float) -> None:
    assert cold(median, spread)[2] <= 1.02  # the jitter costs 0.3 %, the sample errs by 1 %


@pytest.mark.parametrize(("before", "after"), [(30, 3), (3, 30)])
def test_it_learns_anew_when_the_service_changes(before: float, after: float) -> None:
    durations = DurationEstimator()
    waits = wait_for_all([*draw(before, 0.15, 100), *draw(after, 0.15, 300)], durations)
    assert durations.schedule().first == pytest.approx(after, rel=0.3)
    assert sum(polls for polls, _ in waits[-100:]) < 800


def test_many_that_start_together_teach_the_same_as_one_after_another() -> None:
    together, apart, jobs = DurationEstimator(), DurationEstimator(), draw(14, 0.3, 1000)
    for takes in sorted(jobs):
        together.add(takes, takes)
    for takes in jobs:
        apart.add(takes, 0.0)
    assert together.schedule().first == pytest.approx(apart.schedule().first, rel=0.1)


def test_a_job_that_takes_longer_than_any_other_is_polled_wider() -> None:
    schedule = seen(*draw(6, 0.3, 100)).schedule()
    assert schedule.spacing(7) == schedule.spacing(9) < schedule.spacing(60) < schedule.spacing(120)
    assert schedule.spacing(1e6) == WIDEST
    assert seen(*[0.2] * 100).schedule().spacing(0.1) == CLOSEST


def test_a_job_that_may_be_ready_is_polled_at_once() -> None:
    durations = seen(*[20.0] * 30)
    assert Poller(JOB, math.inf, None, 1060.0, durations).delay(1060.0) == 0  # a restart, a late retry
    assert Poller(JOB, math.inf, 30.0, 1060.0).delay(1060.0) == 0
    assert Poller(Job("abc"), math.inf, None, 1000.0, durations).delay(1000.0) == 0  # nobody knows since when


def test_the_triggerer_goes_on_where_the_worker_stopped() -> None:
    durations = seen(*[20.0] * 30)
    assert 5 < Poller(JOB, math.inf, None, 1006.0, durations).delay(1006.0) < 14
    assert Poller(JOB, math.inf, 10.0, 1006.0).delay(1006.0) == pytest.approx(4)


def test_a_clock_that_is_behind_does_not_put_off_the_first_poll() -> None:
    assert Poller(JOB, math.inf, None, 0.0).delay(0.0) <= TYPICAL


def test_a_duration_is_learnt_only_where_it_is_known() -> None:
    def first_after(*answers: tuple[float, Result | FluxServiceError], began: float = 1000.0) -> float:
        durations = DurationEstimator()
        poller = Poller(JOB, math.inf, None, began, durations)
        for now, answer in answers:
            poller.feed(answer, now)
        return durations.schedule().first

    nothing = DurationEstimator().schedule().first
    assert first_after((5000.0, READY), began=5000.0) == nothing  # it may have been ready for an hour
    assert first_after((1002.0, PENDING), (1500.0, FluxServiceError("HTTP 500")), (5000.0, READY)) == nothing
    assert first_after((1040.0, PENDING), (1041.0, READY)) == pytest.approx(seen(40.5).schedule().first)


def test_what_was_seen_is_shared_by_all_who_ask_the_same_api_for_the_same_model() -> None:
    assert estimator_for("https://a", "flux-dev") is estimator_for("https://a", "flux-dev")
    assert estimator_for("https://a", "flux-dev") is not estimator_for("https://b", "flux-dev")
    assert estimator_for("https://a", "flux-dev") is not estimator_for("https://a", None)
