"""Places for jobs in flight, at an account that has less room than was asked for."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

import pytest

from airflow_provider_flux.batch.limiter import AdaptiveLimiter
from airflow_provider_flux.exceptions import FluxRateLimitError, FluxServiceError


class Account:
    """Takes ``room`` jobs at once and refuses others.

    :param after: Refusals before it takes any.
    """

    def __init__(self, room: int, retry_after: float | None = None, after: int = 0) -> None:
        self.room = room
        self.retry_after = retry_after
        self.after = after
        self.active = self.most = self.refusals = 0
        self.asked: list[float] = []
        self.refused: list[float] = []

    async def submit(self) -> None:
        self.asked.append(time.monotonic())
        await asyncio.sleep(0)
        if self.active >= self.room or self.refusals < self.after:
            self.refusals += 1
            self.refused.append(time.monotonic())
            raise FluxRateLimitError("no room", retry_after=self.retry_after)
        self.active += 1
        self.most = max(self.most, self.active)


def use(slots: AdaptiveLimiter, account: Account, jobs: int, job: Callable[[], Awaitable[None]]) -> None:
    async def one() -> None:
        async with front:
            await slots.submit(account.submit)
        await job()
        account.active -= 1
        slots.release()

    async def run() -> None:
        await asyncio.gather(*(one() for _ in range(jobs)))

    front = asyncio.Semaphore(4)
    asyncio.run(run())


async def moment() -> None:
    await asyncio.sleep(0.01)


def test_a_full_account_is_asked_again_when_a_job_has_ended_and_now_and_then_for_more() -> None:
    slots, account = AdaptiveLimiter(24, patience=60), Account(room=4)
    use(slots, account, 200, moment)
    assert account.most == 4
    assert account.refusals == slots.refusals < 50
    assert slots.active == 0


def test_it_finds_its_way_back() -> None:
    slots, account = AdaptiveLimiter(8, patience=60), Account(room=2)
    use(slots, account, 20, moment)
    account.room = 100
    use(slots, account, 100, moment)
    assert account.most == 8


def test_never_more_than_asked_for() -> None:
    slots, account = AdaptiveLimiter(3, patience=60), Account(room=100)
    use(slots, account, 30, moment)
    assert (account.most, account.refusals) == (3, 0)


def test_what_the_api_asks_of_one_binds_all() -> None:
    account = Account(room=100, retry_after=0.3, after=1)
    use(AdaptiveLimiter(24, patience=60), account, 8, moment)
    (refused,) = account.refused
    later = [asked for asked in account.asked if asked > refused]
    assert min(later) >= refused + 0.3


def test_a_job_that_ends_renews_the_patience() -> None:
    slots, account = AdaptiveLimiter(24, patience=1), Account(room=1)
    use(slots, account, 15, lambda: asyncio.sleep(0.1))
    assert account.active == 0


def test_it_gives_up_while_nothing_moves() -> None:
    slots = AdaptiveLimiter(24, patience=0.0)
    with pytest.raises(FluxRateLimitError):
        asyncio.run(slots.submit(Account(room=0).submit))


def test_what_fails_gives_its_place_back() -> None:
    async def fail() -> None:
        raise FluxServiceError("no")

    async def run() -> None:
        for _ in range(3):
            with pytest.raises(FluxServiceError):
                await slots.submit(fail)
        await slots.submit(Account(room=1).submit)

    slots = AdaptiveLimiter(1, patience=60)
    asyncio.run(run())
    assert slots.active == 1
