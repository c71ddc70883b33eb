"""How much a batch may cost. No price list: what images cost is learned from those that were paid for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from airflow_provider_flux.client.errors import (
    FluxError,
    FluxJobFailedError,
    FluxModeratedError,
    FluxUncertainSubmitError,
)

_SOMETHING = 1e-6
"""Credits that a job costs at least, if nothing is known of its price."""


class OverBudgetError(Exception):
    """The next job could pass the budget; says why."""


class Budget:
    """Keeps a batch from passing its cost.

    Until a model's price has been seen, one of its jobs goes alone; after that, each job is expected to cost as
    much as the dearest one of its model so far.

    :param most: Credits; None: no limit.
    """

    def __init__(self, most: float | None) -> None:
        self.paid = 0.0
        """Credits of the jobs whose cost the API told."""
        self._most = most
        self._prices: dict[str, float] = {}
        self._untold: Counter[str] = Counter()
        self._running: Counter[str] = Counter()
        self._silent: set[str] = set()
        self._changed = asyncio.Event()

    def add(self, model: str | None, cost: float) -> None:
        """Count what was paid for an image of ``model``, and learn its price."""
        self.paid += cost
        if model is not None:
            self._prices[model] = max(cost, self._prices.get(model, 0.0))
        self._notify()

    @asynccontextmanager
    async def one(self, model: str) -> AsyncIterator[Charge]:
        """Set aside what a job of ``model`` may cost; what it did is told to the charge, once known.

        :raises OverBudgetError: if that could pass the budget.
        """
        while self._most is not None and model not in self._prices and self._running[model]:
            await self._changed.wait()
        self._check(model)
        charge = Charge(self, model)
        self._untold[model] += 1
        self._running[model] += 1
        try:
            yield charge
        except FluxError as error:
            # Any other job was perhaps paid for, and stays counted as the dearest of its model.
            if _costs_nothing(error):
                charge.refund()
            raise
        else:
            if charge.is_untold:
                self._silent.add(model)
        finally:
            self._running[model] -= 1
            self._notify()

    def _check(self, model: str) -> None:
        if self._most is None:
            return
        if model in self._silent and model not in self._prices:
            raise OverBudgetError(f"the API does not tell what {model} costs, so that max_cost cannot be kept")
        untold = sum(self._prices.get(name, _SOMETHING) * number for name, number in self._untold.items())
        # Sums of floats are off by a little.
        if self.paid + untold + self._prices.get(model, _SOMETHING) > self._most + 1e-9:
            raise OverBudgetError("max_cost is reached")

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Charge:
    """What one job costs, from before its submit on."""

    def __init__(self, budget: Budget, model: str) -> None:
        self._budget = budget
        self._model = model
        self._cost: float | None = None
        self.is_untold = True

    def tell(self, cost: float | None) -> None:
        """Say what the job costs; None: not known yet. The first number counts."""
        if self.is_untold and cost is not None:
            self._settle()
            self._cost = cost
            self._budget.add(self._model, cost)

    def refund(self) -> None:
        """Say that nothing was paid."""
        if self.is_untold:
            self._settle()
        self._budget.paid -= self._cost or 0.0
        self._cost = None

    def _settle(self) -> None:
        self.is_untold = False
        self._budget._untold[self._model] -= 1


def _costs_nothing(error: FluxError) -> bool:
    if isinstance(error, (FluxModeratedError, FluxJobFailedError)):
        return True
    return error.job_id is None and not isinstance(error, FluxUncertainSubmitError)
