"""How much a batch may cost. No price list: what images cost is learned from those that were paid for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager


class OverBudgetError(Exception):
    """The next job could pass the budget."""


class Budget:
    """Keeps a batch from passing its cost.

    Until a model's price has been seen, one of its jobs goes alone; after that, each job is expected to cost as
    much as the dearest one of its model so far.

    :param most: Credits; None: no limit.
    """

    def __init__(self, most: float | None) -> None:
        self._most = most
        self._spent = 0.0
        self._prices: dict[str, float] = {}
        self._open: Counter[str] = Counter()
        self._changed = asyncio.Event()

    @asynccontextmanager
    async def one(self, model: str) -> AsyncIterator[Callable[[float | None], None]]:
        """Set aside what a job of ``model`` may cost; give what to call with the credits that it did, once known.

        :raises OverBudgetError: if that could pass the budget.
        """
        while self._most is not None and model not in self._prices and self._open[model]:
            await self._changed.wait()
        if self._most is not None and self._expected(model) > self._most + 1e-9:
            raise OverBudgetError
        self._open[model] += 1
        settled = False

        def settle(cost: float | None) -> None:
            nonlocal settled
            if not settled:
                settled = True
                self._open[model] -= 1
                self._spent += cost or 0.0
                self._changed.set()
                self._changed = asyncio.Event()
                if cost is not None:
                    self._prices[model] = max(cost, self._prices.get(model, 0.0))

        try:
            yield settle
        finally:
            settle(None)

    def _expected(self, model: str) -> float:
        """Return the credits that will have been spent, if a job of ``model`` is submitted now."""
        prices = sum(self._prices.get(name, 0.0) * number for name, number in self._open.items())
        # One whose price is unknown costs something at least.
        return self._spent + prices + self._prices.get(model, 1e-6)
