"""The limit of jobs in flight, against an account with less capacity than ``max_active``."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from airflow_provider_flux.batch.limiter import AdaptiveLimiter
from airflow_provider_flux.exceptions import FluxRateLimitError, FluxServiceError


class Account:
    """Accepts ``capacity`` jobs at once and refuses more.

    :param refuse_first: Number of submits that it refuses in any case.
    """

    def __init__(self, capacity: int, retry_after: float | None = None, refuse_first: int = 0) -> None:
        self.capacity = capacity
        self.retry_after = retry_after
        self.refuse_first = refuse_first
        self.active = self.max_active = self.refusals = 0
        self.submitted_at: list[float] = []
        self.refused_at: list[float] = []

    async def submit(self) -> None:
        self.submitted_at.append(time.monotonic())
        await asyncio.sleep(0)
        if self.active >= self.capacity or self.refusals < self.refuse_first:
            self.refusals += 1
            self.refused_at.append(time.monotonic())
            raise FluxRateLimitError("no capacity", retry_after=self.retry_after)
        self.active += 1
        self.max_active = max(self.max_active, self.active)


def run_jobs(limiter: AdaptiveLimiter, account: Account, jobs: int, job: Callable[[], Awaitable[None]]) -> None:
    async def run_one() -> None:
        async with turns:
            await limiter.submit(account.submit)
        await job()
        account.active -= 1
        limiter.release()

    async def run() -> None:
        await asyncio.gather(*(run_one() for _ in range(jobs)))

    turns = asyncio.Semaphore(4)
    asyncio.run(run())


async def short_job() -> None:
    await asyncio.sleep(0.01)


def test_a_full_account_refuses_few_submits() -> None:
    limiter, account = AdaptiveLimiter(24, patience=60), Account(capacity=4)
    run_jobs(limiter, account, 200, short_job)
    assert account.max_active == 4
    assert account.refusals == limiter.refusals < 50
    assert limiter.active == 0


def test_limit_recovers_after_429() -> None:
    limiter, account = AdaptiveLimiter(8, patience=60), Account(capacity=2)
    run_jobs(limiter, account, 20, short_job)
    account.capacity = 100
    run_jobs(limiter, account, 100, short_job)
    assert account.max_active == 8


def test_max_active_is_not_exceeded() -> None:
    limiter, account = AdaptiveLimiter(3, patience=60), Account(capacity=100)
    run_jobs(limiter, account, 30, short_job)
    assert (account.max_active, account.refusals) == (3, 0)


def test_retry_after_of_one_refusal_delays_all_submits() -> None:
    account = Account(capacity=100, retry_after=0.3, refuse_first=1)
    run_jobs(AdaptiveLimiter(24, patience=60), account, 8, short_job)
    (refused_at,) = account.refused_at
    later = [submitted_at for submitted_at in account.submitted_at if submitted_at > refused_at]
    assert min(later) >= refused_at + 0.3


def test_a_job_that_ends_restarts_the_patience() -> None:
    limiter, account = AdaptiveLimiter(24, patience=1), Account(capacity=1)
    run_jobs(limiter, account, 15, lambda: asyncio.sleep(0.1))
    assert account.active == 0


def test_submit_fails_when_patience_ends() -> None:
    limiter = AdaptiveLimiter(24, patience=0.0)
    with pytest.raises(FluxRateLimitError):
        asyncio.run(limiter.submit(Account(capacity=0).submit))


def test_a_failed_submit_holds_no_capacity() -> None:
    async def fail() -> None:
        raise FluxServiceError("no")

    async def run() -> None:
        for _ in range(3):
            with pytest.raises(FluxServiceError):
                await limiter.submit(fail)
        await limiter.submit(Account(capacity=1).submit)

    limiter = AdaptiveLimiter(1, patience=60)
    asyncio.run(run())
    assert limiter.active == 1


def test_a_job_in_flight_is_counted_beyond_the_limit() -> None:
    limiter = AdaptiveLimiter(1, patience=60)
    with limiter.occupy(), limiter.occupy():
        assert limiter.active == 2
    assert limiter.active == 0
