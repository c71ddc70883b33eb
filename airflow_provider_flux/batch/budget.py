"""The cost limit of a batch: published prices to begin with, corrected by the costs that the API reports."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Mapping
from types import TracebackType
from typing import Any, NamedTuple

from airflow_provider_flux.client.catalogue.prices import PRICED_FIELDS, estimate
from airflow_provider_flux.client.catalogue.validation import ALL_PARAMETERS
from airflow_provider_flux.exceptions import (
    FluxContentModeratedError,
    FluxError,
    FluxJobFailedError,
    FluxModeratedError,
    FluxUncertainSubmitError,
)

_MIN_COST = 1e-6
"""Credits that a job of unknown price is assumed to cost."""


class PriceKey(NamedTuple):
    """What the price of an image depends on: images with the same key have the same price.

    :param model: The model.
    :param priced: The values of ``PRICED_FIELDS``.
    :param input_images: Number of input images.
    :param list_price: The published price in credits; None if it is unknown.
    """

    model: str
    priced: tuple[str, ...]
    input_images: int
    list_price: float | None


class NotSubmittedError(Exception):
    """A request is not submitted because an option of the batch forbids it; the message says which."""


class MaxCostError(NotSubmittedError):
    """A request is not submitted because the batch has reached its ``max_cost``, or a budget over runs its limit."""


def price_key(model: str | None, request: Mapping[str, Any], input_megapixels: float | None = None) -> PriceKey:
    """Return the price key of the image that ``request`` describes.

    :param input_megapixels: Megapixels of its input images together; None: unknown.
    """
    images = [
        value
        for name, value in request.items()
        if name in ALL_PARAMETERS and ALL_PARAMETERS[name].type in ("image", "images")
    ]
    number = sum(len(value) if isinstance(value, list) else 1 for value in images)
    priced = tuple(str(request.get(name)) for name in PRICED_FIELDS)
    estimated = None if model is None else estimate(model, request, input_megapixels)
    return PriceKey(str(model), priced, number, None if estimated is None else estimated.credits)


class Budget:
    """Keeps a batch from exceeding its maximum cost.

    Each job is expected to cost as much as the most expensive one with the same price key so far: by the costs of
    finished jobs; before one has finished, by the API's estimates; before there is one, by the published price. A job
    of unknown price is submitted alone: until its cost is known, nothing else is submitted.

    :param max_cost: Credits; None: no limit.
    """

    def __init__(self, max_cost: float | None) -> None:
        self.billed = 0.0
        """Credits of the jobs whose cost the API reported."""
        self._max_cost = max_cost
        self._estimates: dict[PriceKey, float] = {}
        self._prices: dict[PriceKey, float] = {}
        self._pending: defaultdict[PriceKey, set[Reservation]] = defaultdict(set)
        """Reservations whose cost is unknown; a closed one stays, since its job may have been billed."""
        self._undecided: set[Reservation] = set()
        """The pending reservations that are not closed."""
        self._unsettled: set[Reservation] = set()
        """Reservations that are not closed and whose job has not finished."""
        self._unpriced_model: str | None = None
        """A model for which the API does not report costs."""
        self._changed = asyncio.Event()

    async def reserve(self, key: PriceKey) -> Reservation:
        """Reserve the cost of a job that is about to be submitted; wait until that is possible.

        :raises NotSubmittedError: if it could exceed the maximum.
        """
        while not self._allows(key):
            await self._changed.wait()
        return self.track(key)

    def track(self, key: PriceKey) -> Reservation:
        """Return a reservation for a job that exists, whatever the maximum is."""
        reservation = Reservation(self, key)
        self._pending[key].add(reservation)
        self._undecided.add(reservation)
        self._unsettled.add(reservation)
        return reservation

    # A reservation reports its changes with the following methods.

    def on_cost(self, reservation: Reservation, change: float) -> None:
        """Count the cost of a reservation, which is known from now on.

        :param change: Credits that it costs more than was counted for it so far.
        """
        self._pending[reservation.key].discard(reservation)
        self._undecided.discard(reservation)
        self.billed += change
        self._notify()

    def on_estimate(self, reservation: Reservation, cost: float) -> None:
        """Learn a price from the API's estimate for a reservation."""
        self._estimates[reservation.key] = max(cost, self._estimates.get(reservation.key, 0.0))
        self._notify()

    def on_settled(self, reservation: Reservation, cost: float | None) -> None:
        """Learn a price from what a reservation's finished job cost; None: the API did not report it."""
        self._unsettled.discard(reservation)
        if cost is not None:
            self._prices[reservation.key] = max(cost, self._prices.get(reservation.key, 0.0))
        elif reservation in self._pending[reservation.key]:
            self._unpriced_model = reservation.key.model
        self._notify()

    def on_closed(self, reservation: Reservation) -> None:
        """Stop waiting for news of a reservation."""
        self._undecided.discard(reservation)
        self._unsettled.discard(reservation)
        self._notify()

    def _allows(self, key: PriceKey) -> bool:
        """Return whether a job may be submitted now; False: not until more is known about the jobs in flight."""
        if self._max_cost is None:
            return True
        if any(self._price(reservation.key) is None for reservation in self._undecided):
            return False
        # A cost that is neither reported nor published has no bound.
        uncounted = any(same and self._price(other) is None for other, same in self._pending.items())
        if self._unpriced_model is not None and (uncounted or self._price(key) is None):
            raise NotSubmittedError(
                f"the API does not report the cost of {self._unpriced_model}, so max_cost cannot be enforced"
            )
        pending = sum((self._price(other) or _MIN_COST) * len(same) for other, same in self._pending.items())
        # Sums of floats are inexact.
        if self.billed + pending + (self._price(key) or _MIN_COST) <= self._max_cost + 1e-9:
            return True
        # Jobs in flight may cost less than estimated, or fail and cost nothing.
        if self._unsettled:
            return False
        raise MaxCostError("max_cost is reached")

    def _price(self, key: PriceKey) -> float | None:
        return self._prices.get(key, self._estimates.get(key, key.list_price))

    def _notify(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Reservation:
    """The cost of one job in a budget, from before its submit until the ``with`` block around it ends."""

    def __init__(self, budget: Budget, key: PriceKey) -> None:
        self.key = key
        self.cost: float | None = None
        """Credits billed; None: unknown, or nothing was billed."""
        self._budget = budget
        self._is_accepted = False

    def record_cost(self, estimate: float | None) -> None:
        """Record that the job was accepted, with the API's estimate of its cost; None: not known yet."""
        self._is_accepted = True
        if estimate is not None and self.cost is None:
            self._set_cost(estimate)
            self._budget.on_estimate(self, estimate)

    def settle(self, cost: float | None) -> None:
        """Record what the finished job cost, which replaces the estimate; None: the API does not report it."""
        self._is_accepted = True
        if cost is not None:
            self._set_cost(cost)
        self._budget.on_settled(self, cost)

    def refund(self) -> None:
        """Record that nothing was billed."""
        self._set_cost(None)

    def close(self) -> None:
        """Record that nothing more will be known; a job of unknown cost still counts with its expected price."""
        self._budget.on_closed(self)

    def _set_cost(self, cost: float | None) -> None:
        before, self.cost = self.cost, cost
        self._budget.on_cost(self, (cost or 0.0) - (before or 0.0))

    def __enter__(self) -> Reservation:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if self._is_free(error):
            self.refund()
        elif isinstance(error, FluxContentModeratedError):
            # The job has finished, and may be billed: what it cost is as known now as it will ever be.
            self.settle(self.cost)
        self.close()

    def _is_free(self, error: BaseException | None) -> bool:
        """Return whether a block that ended with ``error`` certainly leaves nothing to bill."""
        if isinstance(error, (FluxModeratedError, FluxJobFailedError)):
            return not isinstance(error, FluxContentModeratedError)
        is_sent = self._is_accepted or isinstance(error, FluxUncertainSubmitError)
        return isinstance(error, (FluxError, NotSubmittedError)) and not is_sent
