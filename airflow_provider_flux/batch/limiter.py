"""How many jobs may be in flight at once: as many as the account allows, found out by asking. No I/O."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from airflow_provider_flux.exceptions import FluxRateLimitError

T = TypeVar("T")


class AdaptiveLimiter:
    """Places for jobs in flight.

    The account's limit is shared with others and not known: a refusal (HTTP 429) lowers the number of places to that
    of the jobs in flight, each job accepted brings it back a little, half a place a round.

    :param most: Jobs in flight at most.
    :param patience: Seconds for which every submit may be refused while no job comes to its end.
    """

    def __init__(self, most: int, patience: float) -> None:
        self.most = most
        self.limit = float(most)
        self.active = 0
        """Jobs in flight: accepted and not at their end."""
        self.refusals = 0
        self._patience = patience
        self._sending = 0
        self._waves = 0
        self._not_before = 0.0
        self._moved = time.monotonic()
        self._changed = asyncio.Event()

    async def submit(self, send: Callable[[], Awaitable[T]]) -> T:
        """Submit a job with ``send`` as soon as there is room for it, and again if it is refused.

        Once it is accepted, it has a place that :meth:`release` gives back.

        :raises FluxRateLimitError: if the account has had no room for too long.
        """
        while True:
            await self._room()
            self._sending += 1
            try:
                told = await send()
            except FluxRateLimitError as error:
                self._refused(error.retry_after or 0.0)
                if self._not_before > self._moved + self._patience:
                    raise
            else:
                self._accepted()
                return told
            finally:
                self._sending -= 1
                self._notify()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Hold a place for a job that is in flight already, even if there is none."""
        self.active += 1
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Give a place back: its job has come to its end."""
        self.active -= 1
        self._moved = time.monotonic()
        self._notify()

    async def _room(self) -> None:
        while True:
            if (pause := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            elif self.active + self._sending < int(self.limit):
                return
            else:
                await self._changed.wait()

    def _accepted(self) -> None:
        self.active += 1
        self.limit = min(float(self.most), max(self.limit + 0.5 / self.limit, float(self.active)))
        self._waves, self._moved = 0, time.monotonic()

    def _refused(self, pause: float) -> None:
        now = time.monotonic()
        self.refusals += 1
        self.limit = max(1.0, min(self.limit, float(self.active)))
        # While jobs are in flight, the end of one is the moment to ask again.
        if not self.active and now >= self._not_before:
            pause = max(pause, 2.0 ** min(self._waves, 5) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            self._waves += 1
        self._not_before = max(self._not_before, now + pause)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
