"""The poller's decisions, by a clock that the test turns."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.polling import Poller
from airflow_provider_flux.client.responses import JobState, Result

JOB = Job("abc", submitted_at=0.0)
OUTAGE = errors.FluxServiceError("HTTP 500")


def result(state: JobState, word: str = "", sample: str | None = None) -> Result:
    return Result(JOB, word or state.value, state, sample)


READY = result(JobState.READY, "Ready", "https://d/x")
PENDING = result(JobState.WAITING, "Pending")
MISSING = result(JobState.NOT_FOUND, "Task not found")


def run(answer_at: Callable[[float], Result | errors.FluxError], deadline: float = 600.0) -> tuple[Result, float, int]:
    """Poll against a clock; return the result, the time it came, and the number of polls."""
    poller, now = Poller(JOB, deadline, None, 0.0), 0.0
    while True:
        wait = poller.delay(now)
        assert wait > 0 or now >= deadline
        now += max(wait, 1e-6)
        if (done := poller.feed(answer_at(now), now)) is not None:
            return done, now, poller.polls


def test_ready_is_noticed_soon_and_cheaply() -> None:
    done, noticed, polls = run(lambda now: READY if now >= 100 else PENDING)
    assert done == READY
    assert noticed - 100 <= 2
    assert polls < 80


def test_twenty_failed_polls_then_ready() -> None:
    answers = iter([OUTAGE] * 20 + [READY])
    done, _, polls = run(lambda now: next(answers), deadline=3600)
    assert (done, polls) == (READY, 21)


def test_errors_and_retry_after_widen_the_polls() -> None:
    poller = Poller(JOB, 600, 1.0, 0.0)
    poller.feed(OUTAGE, 0.0)
    poller.feed(OUTAGE, 0.0)
    assert poller.delay(0.0) == 2.0
    poller.feed(errors.FluxRateLimitError("429", retry_after=17.0), 0.0)
    assert poller.delay(0.0) == 17.0
    assert poller.delay(595.0) == 5.0  # never beyond the deadline
    poller.feed(PENDING, 0.0)
    assert poller.delay(0.0) == 1.0


def test_the_deadline_ends_waiting_and_says_how_the_last_poll_went() -> None:
    with pytest.raises(errors.FluxTimeoutError, match=r"Job abc was not ready after 30 s .*last status 'Pending'"):
        run(lambda now: PENDING, deadline=30)
    with pytest.raises(errors.FluxTimeoutError, match="the last poll failed: HTTP 500"):
        run(lambda now: OUTAGE, deadline=30)


def test_a_deadline_in_the_past_still_takes_a_finished_image() -> None:
    assert Poller(JOB, 0.0, None, 50.0).feed(READY, 50.0) == READY


def test_task_not_found_is_believed_only_after_a_while() -> None:
    assert run(lambda now: READY if now > 10 else MISSING)[0] == READY
    assert run(lambda now: MISSING if 20 < now < 30 else READY if now > 40 else PENDING)[0] == READY
    with pytest.raises(errors.FluxJobNotFoundError, match="job abc"):
        run(lambda now: MISSING)


def test_the_patience_counts_from_question_to_question() -> None:
    """An answer that lay unread while this process was stopped is no news of now."""
    poller = Poller(JOB, 600.0, 1.0, 0.0)
    poller.feed(MISSING, 2.0, asked_at=1.0)
    poller.feed(MISSING, 40.0, asked_at=3.0)
    with pytest.raises(errors.FluxJobNotFoundError):
        poller.feed(MISSING, 41.0, asked_at=41.0)


@pytest.mark.parametrize("deadline", [3605.0, 7200.0])
def test_an_old_job_that_is_not_found_is_gone_at_once(deadline: float) -> None:
    """Where a retry, or a clear a day later, finds a job that the API has forgotten."""
    poller, now = Poller(JOB, deadline, None, 3600.0), 3600.0
    with pytest.raises(errors.FluxJobNotFoundError, match="does not know job abc"):
        for _ in range(2):
            now += poller.delay(now)
            poller.feed(MISSING, now)


def test_a_long_wait_is_told_of_a_few_times(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    run(lambda now: READY if now > 590 else PENDING)
    told = [line for line in caplog.messages if "last status 'Pending' after" in line]
    assert len(told) == 3
    caplog.clear()
    poller = Poller(JOB, 600.0, 10.0, 0.0, quiet=True)
    for now in range(10, 590, 10):
        poller.feed(PENDING, float(now))
    assert not caplog.messages


@pytest.mark.parametrize(
    ("state", "error"), [(JobState.FAILED, errors.FluxJobFailedError), (JobState.MODERATED, errors.FluxModeratedError)]
)
def test_final_states_end_at_once(state: JobState, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"abc .*Error: the reason"):
        run(lambda now: Result(JOB, "Error", state, reason="the reason"))


def test_ready_without_link_is_not_yet_ready() -> None:
    assert run(lambda now: READY if now > 100 else result(JobState.READY))[0] == READY
    with pytest.raises(errors.FluxTimeoutError, match="last status 'ready'") as caught:
        run(lambda now: result(JobState.READY))
    assert caught.value.retryable


@pytest.mark.parametrize("failure", [cls("HTTP 4xx") for cls in errors._CLASSES.values()])
def test_no_failed_poll_ends_the_wait_before_the_deadline(failure: errors.FluxError) -> None:
    assert run(lambda now: READY if now > 500 else failure)[0] == READY
    with pytest.raises(
        errors.FluxTimeoutError, match=r"Job abc was not ready.*the last poll failed: HTTP 4xx"
    ) as caught:
        run(lambda now: failure)
    assert (caught.value.job_id, caught.value.retryable) == ("abc", True)


def test_the_base_host_is_asked_while_the_jobs_own_host_fails() -> None:
    """Its answer counts, but for "Task not found": a job is known in its own region alone."""
    job = Job("abc", polling_url="https://api.eu2.bfl.ai/v1/get_result?id=abc", submitted_at=0.0)
    for base_host_says, ends in ((MISSING, 200.0), (READY, 10.0)):
        poller, now, asked = Poller(job, 600.0, 2.0, 0.0), 0.0, []
        while True:
            now += poller.delay(now)
            asked.append(poller.asks_base_host)
            own_host_says = OUTAGE if now < 200 else READY
            if poller.feed(base_host_says if asked[-1] else own_host_says, now):
                break
        assert asked[:4] == [False, False, False, True]
        assert now >= ends


def test_a_fixed_interval_is_kept() -> None:
    poller = Poller(JOB, 600, 7.0, 0.0)
    assert poller.delay(0.0) == 7.0
    poller.feed(PENDING, 7.0)
    assert [poller.delay(now) for now in (7.0, 100.0, 599.0)] == [7.0, 7.0, 1.0]
