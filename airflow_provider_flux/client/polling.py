"""The decisions of a wait for one job: from a response and the time to wait, done or failed. No I/O.

The worker's loop and the trigger's loop use the same Poller, so they cannot drift apart.
"""

from __future__ import annotations

import logging
import math
import random
from dataclasses import replace

from airflow_provider_flux.client.estimator import MIN_POLL_INTERVAL, DurationEstimator
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.responses import JobState, Result, is_known_status
from airflow_provider_flux.exceptions import (
    FluxContentModeratedError,
    FluxError,
    FluxJobFailedError,
    FluxJobNotFoundError,
    FluxModeratedError,
    FluxServiceError,
    FluxTimeoutError,
)

log = logging.getLogger(__name__)

NOT_FOUND_GRACE_AGE = 60.0
"""Age of a job in seconds below which some region may not know it yet; an older one needs no grace period."""
NOT_FOUND_GRACE_PERIOD = 15.0
"""Seconds for which "Task not found" does not end the wait for such a young job."""
MAX_BACKOFF = 30.0
"""Longest delay in seconds between two failed polls; a Retry-After may ask for up to twice as much."""
BASE_HOST_AFTER_FAILURES = 3
"""Consecutive failed polls after which every second one goes to the API's base host instead of the job's own."""
WAKE_UP_INTERVAL = 0.05
"""Seconds between the times at which an event loop wakes up to poll many jobs; longer ones block it for longer."""
PROGRESS_LOG_AT = (30.0, 120.0, 300.0, 1800.0)
"""Seconds of waiting after which a line reports the job's status."""


class Poller:
    """Decides when to poll one job, and what each response means.

    The caller repeats three steps: sleep for :meth:`delay`, poll, and pass the response to :meth:`on_response`.

    :param job: The job to wait for.
    :param deadline: Unix time in seconds at which the wait ends.
    :param interval: Fixed interval between polls in seconds; None: as ``estimator`` schedules them.
    :param now: Unix time in seconds at which the wait starts.
    :param estimator: Estimates how long such jobs take, and learns from this one; default: a new one.
    :param quiet: Do not log progress; for one of many jobs.
    """

    def __init__(
        self,
        job: Job,
        deadline: float,
        interval: float | None,
        now: float,
        estimator: DurationEstimator | None = None,
        quiet: bool = False,
    ) -> None:
        self.job = job
        self.deadline = deadline
        self.polls = 0
        self._interval = interval
        self._started_at = now
        self._estimator = estimator or DurationEstimator()
        self._first_poll_after = interval if interval is not None else _jitter(self._estimator.first_poll_after(), 0.05)
        age = self._age(now)
        # The age at which the job was last known to be unfinished; None if it may have been ready for long.
        self._last_unfinished_age = age if job.submitted_at is not None and age < self._first_poll_after else None
        self._pending_age = 0.0  # up to which the estimator knows that the job was pending
        self._missing_since: float | None = None
        self._consecutive_failures = 0
        self._last_failure: FluxError | None = None
        self._unknown_statuses: set[str] = set()
        self._last_status = "unknown"
        self._progress_log_at: tuple[float, ...] = () if quiet else PROGRESS_LOG_AT

    def delay(self, now: float) -> float:
        """Return the seconds until the next poll, at most until the deadline.

        A job that may be ready, as after a restart or in a retry, is polled at once.
        """
        age = self._age(now)
        if not self.polls:
            delay = self._first_poll_after - age if self._last_unfinished_age is not None else 0.0
        elif self._interval is not None:
            delay = self._interval
        else:
            # A job of unknown age is polled as if it could only just be ready.
            delay = _jitter(self._estimator.interval_at(max(age, self._first_poll_after)), 0.1)
        if self._last_failure is not None:
            backoff = min(MAX_BACKOFF, 0.5 * 2 ** min(self._consecutive_failures, 6))
            # The image's URL expires in ten minutes, so a failing host's Retry-After is limited.
            delay = max(delay, backoff, min(self._last_failure.retry_after or 0.0, 2 * MAX_BACKOFF))
        return max(0.0, min(max(MIN_POLL_INTERVAL, delay) if self.polls else delay, self.deadline - now))

    def _age(self, now: float) -> float:
        # The clock of the machine that submitted may be ahead of this one.
        return max(0.0, now - (self._started_at if self.job.submitted_at is None else self.job.submitted_at))

    @property
    def polls_base_host(self) -> bool:
        """Whether the next poll goes to the API's base host, because the job's own host keeps failing."""
        return self._consecutive_failures >= BASE_HOST_AFTER_FAILURES and self._consecutive_failures % 2 == 1

    def on_response(self, response: Result | FluxError, now: float, polled_at: float | None = None) -> Result | None:
        """Process the outcome of one poll; return the finished Result, or None to continue waiting.

        A failed poll (:func:`read_result` defines which ones are) never ends the wait before the deadline.

        :param polled_at: Unix time in seconds at which the poll was sent; default: ``now``. The response may be old,
            if this process was suspended before it could read it.
        :raises FluxError: the outcome of the job, if it is final or the deadline has passed.
        """
        polled_at = now if polled_at is None else polled_at
        polled_base_host = self.polls_base_host
        self.polls += 1
        finished = None
        if isinstance(response, FluxError):
            self._on_failure(response)
        elif response.state is JobState.NOT_FOUND and polled_base_host and self.job.polling_url is not None:
            # Only a job's own region knows it, so this says nothing about the job.
            self._on_failure(FluxServiceError("The job's own host fails, and the base host does not know the job."))
        else:
            finished = self._on_result(response, polled_at)
        if finished is not None:
            self._learn_ready(self._age(polled_at))
            return replace(finished, polls=self.polls)
        if now >= self.deadline:
            # Even if this only response says that an old job is not found: if this process was suspended after the
            # poll, the response may be as old as the job. In any other wait, the last poll is not the first.
            raise self._timeout(now)
        self._log_progress(now)
        return None

    def _on_result(self, result: Result, polled_at: float) -> Result | None:
        self._consecutive_failures, self._last_failure = 0, None
        self._last_status = result.status
        if result.state is not JobState.NOT_FOUND:
            self._missing_since = None
        if result.state is JobState.READY:
            # Without a URL the image is not ready yet.
            return result if result.sample else None
        if result.state is JobState.PENDING:
            self._log_unknown_status(result.status)
            self._learn_pending(self._age(polled_at))
        elif result.state is JobState.NOT_FOUND:
            self._on_not_found(polled_at)
        else:
            raise self._failure(result)
        return None

    def _on_not_found(self, polled_at: float) -> None:
        if self._missing_since is None:
            self._missing_since = polled_at
            return
        is_young = self._age(self._missing_since) < NOT_FOUND_GRACE_AGE
        if not is_young or polled_at - self._missing_since >= NOT_FOUND_GRACE_PERIOD:
            raise FluxJobNotFoundError(
                f"The API does not know job {self.job.id}: it expired, or belongs to another account or region.",
                job_id=self.job.id,
            )

    def _on_failure(self, error: FluxError) -> None:
        self._consecutive_failures += 1
        self._last_failure = error
        self._last_unfinished_age = None
        if self._consecutive_failures in (1, 5, 25):
            log.warning("Poll %d of job %s failed and will be retried: %s", self.polls, self.job.id, error.message)

    def _learn_pending(self, age: float) -> None:
        self._last_unfinished_age = age
        if self.job.submitted_at is not None:
            self._estimator.add_pending(self._pending_age, age)
            self._pending_age = age

    def _learn_ready(self, age: float) -> None:
        """Add the job's duration to the estimate: it became ready between the previous poll and this one."""
        if self._last_unfinished_age is not None and self.job.submitted_at is not None:
            duration = max((self._last_unfinished_age + age) / 2, 0.7 * age)
            self._estimator.add_ready(duration, self._pending_age)

    def _failure(self, result: Result) -> FluxError:
        reason = f": {result.reason}" if result.reason else ""
        if result.state is JobState.FAILED:
            return FluxJobFailedError(f"Job {self.job.id} failed ({result.status}{reason}).", job_id=self.job.id)
        error = FluxContentModeratedError if result.state is JobState.CONTENT_MODERATED else FluxModeratedError
        return error(f"Job {self.job.id} was moderated ({result.status}{reason}).", job_id=self.job.id)

    def _log_unknown_status(self, status: str) -> None:
        if not is_known_status(status) and status not in self._unknown_statuses:
            self._unknown_statuses.add(status)
            log.info("Job %s returned the unknown status %r; treated as pending.", self.job.id, status)

    def _log_progress(self, now: float) -> None:
        """Log the job's status at a few fixed times, however long the wait is."""
        waited = now - self._started_at
        if self._progress_log_at and waited >= self._progress_log_at[0]:
            self._progress_log_at = tuple(seconds for seconds in self._progress_log_at if seconds > waited)
            log.info(
                "Job %s: %s after %.0f s (%d polls); waiting for up to %.0f s more.",
                self.job.id,
                self._last_response(),
                self._age(now),
                self.polls,
                self.deadline - now,
            )

    def _last_response(self) -> str:
        if self._last_failure is not None:
            return f"the last poll failed: {self._last_failure.message}"
        return f"last status {self._last_status!r}"

    def _timeout(self, now: float) -> FluxTimeoutError:
        seconds = now - (self.job.submitted_at or self._started_at)
        return FluxTimeoutError(
            f"Job {self.job.id} was not ready after {seconds:.0f} s ({self.polls} polls; {self._last_response()}).",
            job_id=self.job.id,
        )


def coalesced(delay: float, now: float) -> float:
    """Return slightly more than ``delay`` seconds, so that polls due at about the same time wake an event loop once.

    With many jobs, that saves CPU time.

    :param now: Unix time in seconds.
    """
    if delay < 5 * WAKE_UP_INTERVAL:
        return delay
    return math.ceil((now + delay) / WAKE_UP_INTERVAL) * WAKE_UP_INTERVAL - now


def _jitter(seconds: float, share: float) -> float:
    """Vary ``seconds`` by up to ``share`` either way, so that many jobs are not polled at the same moment."""
    return seconds * random.uniform(1 - share, 1 + share)  # noqa: S311 - not a secret
