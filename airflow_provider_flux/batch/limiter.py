"""How many jobs may be in flight at once: as many as the account allows, learned from its refusals. No I/O."""

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
    """Limits the jobs in flight to what the account has capacity for.

    The account's limit is unknown, and shared with other clients. A refusal (HTTP 429) lowers the limit to the number
    of jobs in flight; each accepted job raises it a little, by about one job in two rounds.

    :param max_active: Maximum number of jobs in flight.
    :param patience: Seconds for which every submit may be refused while no job ends.
    """

    def __init__(self, max_active: int, patience: float) -> None:
        self.max_active = max_active
        self.limit = float(max_active)
        self.active = 0
        """Jobs in flight: accepted and not ended."""
        self.refusals = 0
        """Submits that were refused with HTTP 429."""
        self._patience = patience
        self._sending = 0
        self._backoff_round = 0
        self._not_before = 0.0
        self._last_progress = time.monotonic()
        self._changed = asyncio.Event()

    async def submit(self, send: Callable[[], Awaitable[T]]) -> T:
        """Call ``send`` as soon as there is capacity for its job, and again if it is refused.

        An accepted job holds its capacity until :meth:`release`.

        :raises FluxRateLimitError: if the account has had no capacity for too long.
        """
        while True:
            await self._wait_for_capacity()
            self._sending += 1
            try:
                sent = await send()
            except FluxRateLimitError as error:
                self._on_refused(error.retry_after or 0.0)
                if self._not_before > self._last_progress + self._patience:
                    raise
            else:
                self._on_accepted()
                return sent
            finally:
                self._sending -= 1
                self._notify()

    @contextmanager
    def occupy(self) -> Iterator[None]:
        """Hold capacity for a job that is in flight already, even beyond the limit."""
        self.active += 1
        try:
            yield
        finally:
            self.release()

    def release(self) -> None:
        """Return the capacity of a job that has ended."""
        self.active -= 1
        self._last_progress = time.monotonic()
        self._notify()

    async def _wait_for_capacity(self) -> None:
        while True:
            if (pause := self._not_before - time.monotonic()) > 0:
                await asyncio.sleep(pause)
            elif self.active + self._sending < int(self.limit):
                return
            else:
                await self._changed.wait()

    def _on_accepted(self) -> None:
        self.active += 1
        self.limit = min(float(self.max_active), max(self.limit + 0.5 / self.limit, float(self.active)))
        self._backoff_round, self._last_progress = 0, time.monotonic()

    def _on_refused(self, pause: float) -> None:
        now = time.monotonic()
        self.refusals += 1
        self.limit = max(1.0, min(self.limit, float(self.active)))
        # While jobs are in flight, the next submit waits until one ends.
        if not self.active and now >= self._not_before:
            pause = max(pause, 2.0 ** min(self._backoff_round, 5) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
            self._backoff_round += 1
        self._not_before = max(self._not_before, now + pause)

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
