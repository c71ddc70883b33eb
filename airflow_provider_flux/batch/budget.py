"""How much a batch may cost. No price list: what images cost is learned from those that were paid for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from airflow_provider_flux.client.catalogue.validation import ALL_PARAMETERS
from airflow_provider_flux.exceptions import FluxError, FluxJobFailedError, FluxModeratedError, FluxUncertainSubmitError

Kind = tuple[str, ...]
"""What an image's price depends on: images of one kind cost the same."""

_SOMETHING = 1e-6
"""Credits that a job costs at least, if nothing is known of its price."""


class NotSubmittedError(Exception):
    """A request is not submitted, as the author of the batch wants it; says why."""


def price_key(model: str | None, request: Mapping[str, Any]) -> Kind:
    """Return the kind of the image that ``request`` asks for: model, size, number of input images."""
    images = [
        value
        for name, value in request.items()
        if name in ALL_PARAMETERS and ALL_PARAMETERS[name].type in ("image", "images")
    ]
    number = sum(len(value) if isinstance(value, list) else 1 for value in images)
    size = (str(request.get(name)) for name in ("width", "height", "aspect_ratio", "resolution"))
    return (str(model), *size, str(number))


class MaxCostError(NotSubmittedError):
    """A request is not submitted because the batch has reached its ``max_cost``."""


class Budget:
    """Keeps a batch from passing its cost.

    Each job is expected to cost as much as the dearest one of its kind so far: by what finished jobs have cost, or,
    before one has finished, by what the API estimated. A job of a kind whose price is not known goes alone: nothing
    else is submitted until its cost is known.

    :param most: Credits; None: no limit.
    """

    def __init__(self, most: float | None) -> None:
        self.paid = 0.0
        """Credits of the jobs whose cost the API returned."""
        self._most = most
        self._estimates: dict[Kind, float] = {}
        self._prices: dict[Kind, float] = {}
        self._untold: Counter[Kind] = Counter()
        self._open: set[Charge] = set()
        """Charges whose cost is not known at all."""
        self._running: set[Charge] = set()
        """Charges whose settled cost is not known yet."""
        self._silent: str | None = None
        self._changed = asyncio.Event()

    def count(self, kind: Kind) -> Charge:
        """Return the charge of a job that is there already, whatever the limit is."""
        return Charge(self, kind)

    async def set_aside(self, kind: Kind) -> Charge:
        """Set aside what a job that is to be submitted may cost.

        :raises NotSubmittedError: if that could pass the limit.
        """
        while not self._allows(kind):
            await self._changed.wait()
        return Charge(self, kind)

    def _allows(self, kind: Kind) -> bool:
        """Return whether a job may be submitted now; False: not before more is known of those that are on their way."""
        if self._most is None:
            return True
        if any(self._price(charge.kind) is None for charge in self._open):
            return False
        if self._silent is not None and self._price(kind) is None:
            raise NotSubmittedError(
                f"the API does not report the cost of {self._silent}, so max_cost cannot be enforced"
            )
        untold = sum((self._price(other) or _SOMETHING) * number for other, number in self._untold.items())
        # Sums of floats are off by a little.
        if self.paid + untold + (self._price(kind) or _SOMETHING) <= self._most + 1e-9:
            return True
        # Jobs may turn out cheaper than they were estimated, or fail at no cost.
        if self._running:
            return False
        raise MaxCostError("max_cost is reached")

    def _price(self, kind: Kind) -> float | None:
        return self._prices.get(kind, self._estimates.get(kind))

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Charge:
    """What one job costs, from before its submit to the end of a ``with`` block around it."""

    def __init__(self, budget: Budget, kind: Kind) -> None:
        self.kind = kind
        self.cost: float | None = None
        """Credits paid; None: not known, or nothing."""
        self._budget = budget
        self._is_accepted = self._is_known = False
        budget._untold[kind] += 1
        budget._open.add(self)
        budget._running.add(self)

    def tell(self, estimate: float | None) -> None:
        """Take in that the job was accepted, and what the API expects it to cost; None: not known yet."""
        self._is_accepted = True
        if estimate is not None and self.cost is None:
            self._count(estimate, self._budget._estimates)

    def finish(self, cost: float | None) -> None:
        """Take in what the finished job has cost, which wins over the estimate; None: it is never known."""
        self._is_accepted = True
        self._budget._running.discard(self)
        if cost is not None:
            self._count(cost, self._budget._prices)
        elif not self._is_known:
            self._budget._silent = self.kind[0]
        self._budget._notify()

    def _count(self, cost: float, prices: dict[Kind, float]) -> None:
        self._settle()
        self._budget.paid += cost - (self.cost or 0.0)
        self.cost = cost
        prices[self.kind] = max(cost, prices.get(self.kind, 0.0))
        self._budget._notify()

    def refund(self) -> None:
        """Take in that nothing was paid."""
        self._settle()
        self._budget.paid -= self.cost or 0.0
        self.cost = None

    def close(self) -> None:
        """Take in that nothing more will be known of the job; with an unknown cost, it stays counted at its price."""
        self._budget._open.discard(self)
        self._budget._running.discard(self)
        self._budget._notify()

    def _settle(self) -> None:
        if not self._is_known:
            self._is_known = True
            self._budget._untold[self.kind] -= 1
            self._budget._open.discard(self)

    def __enter__(self) -> Charge:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if self._is_free(error):
            self.refund()
        self.close()

    def _is_free(self, error: BaseException | None) -> bool:
        if isinstance(error, (FluxModeratedError, FluxJobFailedError)):
            return True
        is_sent = self._is_accepted or isinstance(error, FluxUncertainSubmitError)
        return isinstance(error, (FluxError, NotSubmittedError)) and not is_sent
