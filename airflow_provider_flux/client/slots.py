"""How many jobs may be in flight at once: as many as the account allows, found out by asking. No I/O."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Slots:
    """Places for jobs in flight, given out in the order in which they are asked for.

    The account's limit is shared with others and not known: a refusal (HTTP 429) lowers the number to what was in
    flight without the refused job, each job accepted brings it back a little, one whole place a round.

    :param most: Jobs in flight at most.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self.limit = float(most)
        self.active = 0
        self._freed = asyncio.Condition()
        self._line = asyncio.Lock()

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """Wait for a place and hold it."""
        async with self._line, self._freed:
            await self._freed.wait_for(lambda: self.active < int(self.limit))
            self.active += 1
        try:
            yield
        finally:
            async with self._freed:
                self.active -= 1
                self._freed.notify_all()

    def refused(self) -> None:
        """Lower the number: the account had no room for a job."""
        self.limit = max(1.0, min(self.limit, self.active - 1.0))

    def accepted(self) -> None:
        """Raise the number a little: the account had room for a job."""
        self.limit = min(float(self.most), self.limit + 1 / self.limit)
