"""The poller's decisions, by a clock that the test controls."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.polling import Poller
from airflow_provider_flux.client.responses import JobState, Result

JOB = Job("abc", submitted_at=0.0)
OUTAGE = errors.FluxServiceError("HTTP 500")


def result(state: JobState, status: str = "", sample: str | None = None) -> Result:
    return Result(JOB, status or state.value, state, sample)


READY = result(JobState.READY, "Ready", "https://d/x")
PENDING = result(JobState.PENDING, "Pending")
MISSING = result(JobState.NOT_FOUND, "Task not found")


def run(
    response_at: Callable[[float], Result | errors.FluxError], deadline: float = 600.0
) -> tuple[Result, float, int]:
    """Poll by a simulated clock; return the result, the time at which it was noticed, and the number of polls."""
    poller, now = Poller(JOB, deadline, None, 0.0), 0.0
    while True:
        wait = poller.delay(now)
        assert wait > 0 or now >= deadline
        now += max(wait, 1e-6)
        if (finished := poller.on_response(response_at(now), now)) is not None:
            return finished, now, poller.polls


def test_ready_job_is_noticed_soon_with_few_polls() -> None:
    finished, noticed, polls = run(lambda now: READY if now >= 100 else PENDING)
    assert finished == READY
    assert noticed - 100 <= 16.5
    assert polls < 30


def test_twenty_failed_polls_do_not_end_the_wait() -> None:
    responses = iter([OUTAGE] * 20 + [READY])
    finished, _, polls = run(lambda now: next(responses), deadline=3600)
    assert (finished, polls) == (READY, 21)


def test_errors_and_retry_after_delay_the_next_poll() -> None:
    poller = Poller(JOB, 600, 1.0, 0.0)
    poller.on_response(OUTAGE, 0.0)
    poller.on_response(OUTAGE, 0.0)
    assert poller.delay(0.0) == 2.0
    poller.on_response(errors.FluxRateLimitError("429", retry_after=17.0), 0.0)
    assert poller.delay(0.0) == 17.0
    assert poller.delay(595.0) == 5.0  # never beyond the deadline
    poller.on_response(PENDING, 0.0)
    assert poller.delay(0.0) == 1.0


def test_an_unknown_status_is_logged_once_and_a_known_one_never(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    words = iter(["QUEUED", "Napping", "Napping", "In_Progress"])
    run(lambda now: READY if (word := next(words, "")) == "" else result(JobState.PENDING, word))
    assert caplog.messages == ["Job abc returned the unknown status 'Napping'; treated as pending."]


def test_timeout_error_reports_the_last_poll() -> None:
    with pytest.raises(errors.FluxTimeoutError, match=r"Job abc was not ready after 30 s .*last status 'Pending'"):
        run(lambda now: PENDING, deadline=30)
    with pytest.raises(errors.FluxTimeoutError, match="the last poll failed: HTTP 500"):
        run(lambda now: OUTAGE, deadline=30)


def test_finished_image_is_returned_after_the_deadline() -> None:
    assert Poller(JOB, 0.0, None, 50.0).on_response(READY, 50.0) == READY


def test_task_not_found_ends_the_wait_of_a_young_job_only_after_the_grace_period() -> None:
    assert run(lambda now: READY if now > 10 else MISSING)[0] == READY
    assert run(lambda now: MISSING if 20 < now < 30 else READY if now > 40 else PENDING)[0] == READY
    with pytest.raises(errors.FluxJobNotFoundError, match="job abc"):
        run(lambda now: MISSING)


def test_grace_period_counts_from_poll_to_poll() -> None:
    """A response that was read late, after this process was suspended, is not news."""
    poller = Poller(JOB, 600.0, 1.0, 0.0)
    poller.on_response(MISSING, 2.0, polled_at=1.0)
    poller.on_response(MISSING, 40.0, polled_at=3.0)
    with pytest.raises(errors.FluxJobNotFoundError):
        poller.on_response(MISSING, 41.0, polled_at=41.0)


@pytest.mark.parametrize("deadline", [3605.0, 7200.0])
def test_old_job_that_is_not_found_fails_at_once(deadline: float) -> None:
    """As in a retry, or after a clear a day later, when the job has expired at the API."""
    poller, now = Poller(JOB, deadline, None, 3600.0), 3600.0
    with pytest.raises(errors.FluxJobNotFoundError, match="does not know job abc"):
        for _ in range(2):
            now += poller.delay(now)
            poller.on_response(MISSING, now)


def test_long_wait_logs_progress_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(lambda now: READY if now > 590 else PENDING)
    lines = [line for line in caplog.messages if "last status 'Pending' after" in line]
    assert len(lines) == 3
    caplog.clear()
    poller = Poller(JOB, 600.0, 10.0, 0.0, quiet=True)
    for now in range(10, 590, 10):
        poller.on_response(PENDING, float(now))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("state", "error"), [(JobState.FAILED, errors.FluxJobFailedError), (JobState.MODERATED, errors.FluxModeratedError)]
)
def test_final_state_ends_the_wait_at_once(state: JobState, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"abc .*Error: the reason"):
        run(lambda now: Result(JOB, "Error", state, reason="the reason"))


def test_ready_without_url_is_pending() -> None:
    assert run(lambda now: READY if now > 100 else result(JobState.READY))[0] == READY
    with pytest.raises(errors.FluxTimeoutError, match="last status 'ready'") as caught:
        run(lambda now: result(JobState.READY))
    assert caught.value.retryable


@pytest.mark.parametrize("failure", [cls("HTTP 4xx") for cls in errors._CLASSES.values()])
def test_failed_poll_never_ends_the_wait_before_the_deadline(failure: errors.FluxError) -> None:
    assert run(lambda now: READY if now > 500 else failure)[0] == READY
    with pytest.raises(
        errors.FluxTimeoutError, match=r"Job abc was not ready.*the last poll failed: HTTP 4xx"
    ) as caught:
        run(lambda now: failure)
    assert (caught.value.job_id, caught.value.retryable) == ("abc", True)


def test_base_host_is_polled_while_the_jobs_own_host_fails() -> None:
    """Its response counts, except for "Task not found": only a job's own region knows it."""
    job = Job("abc", polling_url="https://api.eu2.bfl.ai/v1/get_result?id=abc", submitted_at=0.0)
    for base_host_response, ends_at in ((MISSING, 200.0), (READY, 10.0)):
        poller, now, polled_base_host = Poller(job, 600.0, 2.0, 0.0), 0.0, []
        while True:
            now += poller.delay(now)
            polled_base_host.append(poller.polls_base_host)
            own_host_response = OUTAGE if now < 200 else READY
            if poller.on_response(base_host_response if polled_base_host[-1] else own_host_response, now):
                break
        assert polled_base_host[:4] == [False, False, False, True]
        assert now >= ends_at


def test_fixed_interval_is_kept() -> None:
    poller = Poller(JOB, 600, 7.0, 0.0)
    assert poller.delay(0.0) == 7.0
    poller.on_response(PENDING, 7.0)
    assert [poller.delay(now) for now in (7.0, 100.0, 599.0)] == [7.0, 7.0, 1.0]
