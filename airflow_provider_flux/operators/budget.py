"""How much a batch may cost. No price list: what images cost is learned from those that were paid for."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from airflow_provider_flux.client.errors import (
    FluxError,
    FluxJobFailedError,
    FluxModeratedError,
    FluxUncertainSubmitError,
)
from airflow_provider_flux.client.validation import KNOWN

Kind = tuple[str, ...]
"""What an image's price depends on: images of one kind cost the same."""

_SOMETHING = 1e-6
"""Credits that a job costs at least, if nothing is known of its price."""


class NotSubmittedError(Exception):
    """A request is not submitted, as the author of the batch wants it; says why."""


def kind_of(model: str | None, request: Mapping[str, Any]) -> Kind:
    """Return the kind of the image that ``request`` asks for: model, size, number of input images."""
    images = [value for name, value in request.items() if name in KNOWN and KNOWN[name].kind in ("image", "images")]
    number = sum(len(value) if isinstance(value, list) else 1 for value in images)
    size = (str(request.get(name)) for name in ("width", "height", "aspect_ratio", "resolution"))
    return (str(model), *size, str(number))


class Budget:
    """Keeps a batch from passing its cost.

    Each job is expected to cost as much as the dearest one of its kind so far. A job of a kind whose price is not
    known goes alone: nothing else is submitted until it has told its cost.

    :param most: Credits; None: no limit.
    """

    def __init__(self, most: float | None) -> None:
        self.paid = 0.0
        """Credits of the jobs whose cost the API told."""
        self._most = most
        self._prices: dict[Kind, float] = {}
        self._untold: Counter[Kind] = Counter()
        self._open: set[Charge] = set()
        self._silent: str | None = None
        self._changed = asyncio.Event()

    def count(self, kind: Kind) -> Charge:
        """Return the charge of a job that is there already, whatever the limit is."""
        return Charge(self, kind)

    async def set_aside(self, kind: Kind) -> Charge:
        """Set aside what a job that is to be submitted may cost.

        :raises NotSubmittedError: if that could pass the limit.
        """
        while self._most is not None and any(charge.kind not in self._prices for charge in self._open):
            await self._changed.wait()
        self._check(kind)
        return Charge(self, kind)

    def _check(self, kind: Kind) -> None:
        if self._most is None:
            return
        if self._silent is not None and kind not in self._prices:
            raise NotSubmittedError(f"the API does not tell what {self._silent} costs, so that max_cost cannot be kept")
        untold = sum(self._prices.get(other, _SOMETHING) * number for other, number in self._untold.items())
        # Sums of floats are off by a little.
        if self.paid + untold + self._prices.get(kind, _SOMETHING) > self._most + 1e-9:
            raise NotSubmittedError("max_cost is reached")

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
        self._is_accepted = self._is_settled = False
        budget._untold[kind] += 1
        budget._open.add(self)

    def tell(self, cost: float | None) -> None:
        """Say that the job was accepted, and what it costs; None: not known yet. The first number counts."""
        self._is_accepted = True
        if not self._is_settled and cost is not None:
            self._settle()
            self.cost = cost
            self._budget.paid += cost
            self._budget._prices[self.kind] = max(cost, self._budget._prices.get(self.kind, 0.0))
            self._budget._notify()

    def finish(self, cost: float | None) -> None:
        """Say what the finished job has cost; None: nobody will ever know."""
        self.tell(cost)
        if not self._is_settled:
            self._budget._silent = self.kind[0]

    def refund(self) -> None:
        """Say that nothing was paid."""
        self._settle()
        self._budget.paid -= self.cost or 0.0
        self.cost = None

    def close(self) -> None:
        """Say that nothing more will be known of the job; if its cost was not told, it stays counted at its price."""
        self._budget._open.discard(self)
        self._budget._notify()

    def _settle(self) -> None:
        if not self._is_settled:
            self._is_settled = True
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
