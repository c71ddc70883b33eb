"""Pure decisions of whoever waits for a job: an answer and the clock -> wait, done or fail. No I/O.

The worker's loop and the trigger's loop feed the same Poller, so they cannot drift apart.
"""

from __future__ import annotations

import logging
import random
from dataclasses import replace

from airflow_provider_flux.client.estimator import DurationEstimator
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.responses import KNOWN_WAITING, JobState, Result
from airflow_provider_flux.exceptions import (
    FluxError,
    FluxJobFailedError,
    FluxJobNotFoundError,
    FluxModeratedError,
    FluxServiceError,
    FluxTimeoutError,
)

log = logging.getLogger(__name__)

NOT_FOUND_PATIENCE = 15.0
"""Seconds for which "Task not found" may be a region that has not heard of the job yet."""
YOUNG = 60.0
"""Seconds after its submit for which a job may be news to some region; of an older one, the second answer counts."""
LEAST_WAIT = 0.1
"""Least seconds between two polls, whatever interval was asked for."""
LONGEST_BACKOFF = 30.0
"""Most seconds between two polls that fail; a Retry-After may ask for more, up to twice as much."""
OTHER_HOST_AFTER = 3
"""Polls in a row that fail before every second one goes to the API's base host instead of the job's own."""
TOLD_AT = (30.0, 120.0, 300.0, 1800.0)
"""Seconds of waiting after which a line says how the job is."""


class Poller:
    """Decides when to poll one job, and after each poll what its answer means.

    Whoever waits sleeps for :meth:`delay`, polls, and gives the answer to :meth:`feed`, again and again.

    :param job: The job that is waited for.
    :param deadline: Unix time in seconds after which waiting ends.
    :param interval: Fixed seconds between polls; None: as ``durations`` tells.
    :param now: Unix time at which this wait began.
    :param durations: How long such jobs take; learns from this one.
    :param quiet: Do not log now and then how the job is; for one of many.
    """

    def __init__(
        self,
        job: Job,
        deadline: float,
        interval: float | None,
        now: float,
        durations: DurationEstimator | None = None,
        quiet: bool = False,
    ) -> None:
        self.job = job
        self.deadline = deadline
        self.polls = 0
        self._interval = interval
        self._began = now
        self._durations = durations or DurationEstimator()
        self._schedule = self._durations.schedule()
        self._first = interval if interval is not None else _jitter(self._schedule.first, 0.05)
        age = self._age(now)
        # The age at which the job was last known not to be ready; None: it may have been ready for long.
        self._unready = age if job.submitted_at is not None and age < self._first else None
        self._missing_since: float | None = None
        self._failures = 0  # in a row
        self._last_failure: FluxError | None = None
        self._words: set[str] = set()
        self._status = "unknown"
        self._lines: tuple[float, ...] = () if quiet else TOLD_AT

    def delay(self, now: float) -> float:
        """Return the seconds until the next poll; never beyond the deadline.

        The first one of a job that may be ready comes at once: after a restart, or in a retry.
        """
        age = self._age(now)
        if not self.polls:
            wait = self._first - age if self._unready is not None else 0.0
        elif self._interval is not None:
            wait = self._interval
        else:
            wait = _jitter(self._schedule.spacing(age), 0.1)
        if self._last_failure is not None:
            backoff = min(LONGEST_BACKOFF, 0.5 * 2 ** min(self._failures, 6))
            # A job's link lives ten minutes, whatever a host that fails asks for.
            wait = max(wait, backoff, min(self._last_failure.retry_after or 0.0, 2 * LONGEST_BACKOFF))
        return max(0.0, min(max(LEAST_WAIT, wait) if self.polls else wait, self.deadline - now))

    def _age(self, now: float) -> float:
        # Another machine's clock may be ahead of the one that submitted.
        return max(0.0, now - (self._began if self.job.submitted_at is None else self.job.submitted_at))

    @property
    def asks_base_host(self) -> bool:
        """Whether the next poll goes to the API's base host, because the job's own host fails for a while."""
        return self._failures >= OTHER_HOST_AFTER and self._failures % 2 == 1

    def feed(self, answer: Result | FluxError, now: float, asked_at: float | None = None) -> Result | None:
        """Take the answer of one poll; return the finished Result, or None to go on waiting.

        A poll that failed (:func:`read_result` says which ones) never ends the wait before the deadline.

        :param asked_at: Unix time at which the poll was sent; default: ``now``. An answer may be old: this process may
            have been stopped before it could read it.
        :raises FluxError: the outcome of the job, if it is final or the deadline has passed.
        """
        asked_base_host = self.asks_base_host
        self.polls += 1
        done = None
        if isinstance(answer, FluxError):
            self._note_failure(answer)
        elif answer.state is JobState.NOT_FOUND and asked_base_host and self.job.polling_url is not None:
            # A job is known in its own region alone, so this is no news of it.
            self._note_failure(FluxServiceError("The job's own host fails, and the base host does not know the job."))
        else:
            done = self._judge(answer, now, now if asked_at is None else asked_at)
        if done is not None:
            self._learn(now)
            return replace(done, polls=self.polls)
        if now >= self.deadline:
            # Even if this one answer says that an old job is gone: it may be as old as the job, where this process was
            # stopped since. The last poll of any other wait is its second.
            raise self._timeout(now)
        self._tell(now)
        return None

    def _judge(self, result: Result, now: float, asked_at: float) -> Result | None:
        self._failures, self._last_failure = 0, None
        self._status = result.status
        if result.state is not JobState.NOT_FOUND:
            self._missing_since = None
        if result.state is JobState.READY:
            # Without a link, the image is not there yet.
            return result if result.sample else None
        if result.state is JobState.WAITING:
            self._note(result.status)
            self._unready = self._age(now)
        elif result.state is JobState.NOT_FOUND:
            if self._missing_since is None:
                self._missing_since = asked_at
            elif not self._is_young() or asked_at - self._missing_since >= NOT_FOUND_PATIENCE:
                raise self._not_found()
        else:
            self._fail(result)
        return None

    def _is_young(self) -> bool:
        """Tell whether the API may not have heard of the job yet when it was first missed."""
        return self._age(self._missing_since or 0.0) < YOUNG

    def _not_found(self) -> FluxJobNotFoundError:
        return FluxJobNotFoundError(
            f"The API does not know job {self.job.id} (any more): it expired, or belongs to another account or region.",
            job_id=self.job.id,
        )

    def _learn(self, now: float) -> None:
        """Note how long the job took: it became ready between the last poll that said otherwise and this one."""
        if self._unready is not None:
            age = self._age(now)
            self._durations.add(max((self._unready + age) / 2, 0.75 * age), now)

    def _fail(self, result: Result) -> None:
        why = f": {result.reason}" if result.reason else ""
        if result.state is JobState.MODERATED:
            raise FluxModeratedError(f"Job {self.job.id} was moderated ({result.status}{why}).", job_id=self.job.id)
        raise FluxJobFailedError(f"Job {self.job.id} failed ({result.status}{why}).", job_id=self.job.id)

    def _note_failure(self, error: FluxError) -> None:
        self._failures += 1
        self._last_failure = error
        self._unready = None
        if self._failures in (1, 5, 25):
            log.warning("Poll %d of job %s failed; it is asked for again: %s", self.polls, self.job.id, error.message)

    def _note(self, word: str) -> None:
        if word.lower() not in KNOWN_WAITING and word not in self._words:
            self._words.add(word)
            log.info("Job %s has the status %r, which is not known here; waiting on.", self.job.id, word)

    def _tell(self, now: float) -> None:
        """Log how the job is, a few times however long it takes."""
        waited = now - self._began
        if self._lines and waited >= self._lines[0]:
            self._lines = tuple(at for at in self._lines if at > waited)
            log.info(
                "Job %s: %s after %.0f s (%d polls); waiting for %.0f s more at most.",
                self.job.id,
                self._last(),
                self._age(now),
                self.polls,
                self.deadline - now,
            )

    def _last(self) -> str:
        if self._last_failure is not None:
            return f"the last poll failed: {self._last_failure.message}"
        return f"last status {self._status!r}"

    def _timeout(self, now: float) -> FluxTimeoutError:
        seconds = now - (self.job.submitted_at or self._began)
        return FluxTimeoutError(
            f"Job {self.job.id} was not ready after {seconds:.0f} s ({self.polls} polls; {self._last()}).",
            job_id=self.job.id,
        )


def _jitter(seconds: float, share: float) -> float:
    """Spread what would come at one moment for many; by ``share`` to either side."""
    return seconds * random.uniform(1 - share, 1 + share)  # noqa: S311 - not a secret
