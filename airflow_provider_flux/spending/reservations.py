"""Reservations of paid requests, in all budgets that apply: made right before a submit, settled when its job ends."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import TracebackType

from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.exceptions import (
    FluxBudgetError,
    FluxContentModeratedError,
    FluxError,
    FluxImageExpiredError,
    FluxJobFailedError,
    FluxJobNotFoundError,
    FluxModeratedError,
    FluxUncertainSubmitError,
)
from airflow_provider_flux.spending.ledger import Ledger
from airflow_provider_flux.spending.ledger_file import Change
from airflow_provider_flux.spending.shared_budget import BudgetStatus, Price, SharedBudget

log = logging.getLogger(__name__)

_BILLED = (FluxContentModeratedError, FluxJobNotFoundError, FluxImageExpiredError)
"""How a job may end without an image and be billed."""
_NOT_BILLED = (FluxModeratedError, FluxJobFailedError)
"""How a job may end without being billed."""
_SETTLE_PATIENCE = 10.0
"""Seconds for which a settlement is attempted; without it, the reservation stays until the period ends."""
_RAISE_PATIENCE = 2.0
"""The same between the API's response and the receipt, where a process that ends loses a paid job."""


class Reservations:
    """What a client has reserved in the budgets that apply to it.

    :param budgets: All of them must allow a submit; none: everything is allowed.
    """

    def __init__(self, budgets: Sequence[SharedBudget]) -> None:
        self.budgets = budgets

    def for_request(self, price: Callable[[], Price]) -> PaidRequest:
        """Return the reservation of one paid request, which is a context manager around its submit.

        :param price: Returns what the request is expected to cost.
        """
        return PaidRequest(self.budgets, price)

    def settle(self, job: Job, cost: float | None = None, error: FluxError | None = None) -> None:
        """Record what a job cost, once it has ended. Never raises: without this, the reservation stays.

        :param cost: Credits; None: unless the submit said, what was reserved.
        :param error: How the job ended, if not well.
        """
        if (reservation := job.reservation) is None:
            return
        if error is None or isinstance(error, _BILLED):
            self.settle_finished([(job, cost)])
        elif isinstance(error, _NOT_BILLED):
            _change_all(self.budgets, reservation, lambda ledger: ledger.release(reservation), _SETTLE_PATIENCE)

    def settle_finished(self, finished: Iterable[tuple[Job, float | None]]) -> None:
        """Record what jobs cost that have finished, as :meth:`settle` does for one.

        :param finished: Jobs, each with its cost.
        """
        costs = {job.reservation: job.cost if cost is None else cost for job, cost in finished if job.reservation}
        # One change for all of the same period; those of a period that has ended are left out.
        newest = max(costs, key=_reserved_at, default=None)
        if newest is not None:
            _change_all(
                self.budgets,
                newest,
                lambda ledger: _settle_all(ledger, costs),
                _SETTLE_PATIENCE,
            )

    def status(self) -> list[BudgetStatus]:
        """Return the state of each budget.

        :raises FluxError: if a ledger cannot be read.
        """
        return [budget.status() for budget in self.budgets]


class PaidRequest:
    """The reservation of one paid request, from right before it is sent until its outcome is known.

    :param budgets: Where it is reserved.
    :param price: Returns what the request is expected to cost; called once it is known to be valid.
    """

    def __init__(self, budgets: Sequence[SharedBudget], price: Callable[[], Price]) -> None:
        self._budgets = budgets
        self._price = price
        self._id: str | None = None
        self._held: list[SharedBudget] = []
        """The budgets in which it may be reserved."""
        self._credits = 0.0
        self._may_be_accepted = False

    def before_request(self, then: Callable[[], None]) -> None:
        """Reserve the price, unless it is reserved; called right before each request.

        :param then: Called last.
        :raises FluxBudgetError: if a budget does not allow it.
        :raises FluxStoreError: if a ledger cannot be read or written.
        """
        # A request is repeated only if the one before it was certainly refused.
        self._may_be_accepted = False
        if self._id is None and self._budgets:
            price, now = self._price(), time.time()
            self._id = reservation = f"{now:.3f}-{uuid.uuid4().hex[:16]}"
            self._credits = min([self._reserve(budget, reservation, price, now) for budget in self._budgets])
        then()
        self._may_be_accepted = True

    def _reserve(self, budget: SharedBudget, reservation: str, price: Price, now: float) -> float:
        self._held.append(budget)
        try:
            return budget.reserve(reservation, price, now)
        except FluxBudgetError:
            # Nothing is written.
            self._held.remove(budget)
            raise

    def accepted(self, job: Job) -> Job:
        """Return the accepted job with its reservation; raises the reservation if the API charges more."""
        if (reservation := self._id) is None:
            return job
        if (cost := job.cost) is not None and cost > self._credits:
            _change_all(self._held, reservation, lambda ledger: ledger.raise_to(reservation, cost), _RAISE_PATIENCE)
        return replace(job, reservation=reservation)

    def __enter__(self) -> PaidRequest:
        return self

    def __exit__(self, _: type[BaseException] | None, error: BaseException | None, __: TracebackType | None) -> None:
        if error is None or self._id is None:
            return
        is_refused = isinstance(error, FluxError) and not isinstance(error, FluxUncertainSubmitError)
        # Otherwise the job may exist: what is reserved for it stays.
        if is_refused or not self._may_be_accepted:
            reservation = self._id
            _change_all(self._held, reservation, lambda ledger: ledger.release(reservation), _SETTLE_PATIENCE)


def _settle_all(ledger: Ledger, costs: Mapping[str, float | None]) -> bool:
    changes = [ledger.settle(reservation, cost) for reservation, cost in costs.items()]
    return any(changes)


def _change_all(budgets: Sequence[SharedBudget], reservation: str, change: Change, patience: float) -> None:
    """Change a reservation in all ledgers; a ledger that cannot be changed keeps it until its period ends."""
    for budget in budgets:
        try:
            budget.change(_reserved_at(reservation), change, patience)
        except FluxError as error:
            log.warning("The budget keeps what was reserved for a job until its period ends: %s", error.message)


def _reserved_at(reservation: str) -> float:
    """Return the Unix time of a reservation, which its id begins with; 0 if it is none."""
    try:
        return float(reservation.partition("-")[0])
    except ValueError:
        return 0.0
