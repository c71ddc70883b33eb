"""The jobs of a batch: which one each item has, which are in flight, and what each costs this run."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from airflow_provider_flux.batch.budget import Budget, Reservation, price_key
from airflow_provider_flux.receipts.receipt import PAID_STATES

if TYPE_CHECKING:
    from airflow_provider_flux.identity import TaskIdentity
    from airflow_provider_flux.receipts.receipt import Receipt, ReceiptState


class JobLedger:
    """Keeps one reservation for the job of each item, and counts each job once.

    :param budget: Counts what this run pays.
    :param run: The task that runs the batch.
    """

    def __init__(self, budget: Budget, run: TaskIdentity) -> None:
        self.budget = budget
        self.in_flight: dict[int, str] = {}
        """The id of the job that each item has in flight, by the item's index."""
        self.paid_states: dict[int, ReceiptState] = {}
        """The state of the receipt of each item that was paid for before this attempt, by the item's index."""
        self._run = run
        self._reservations: dict[int, Reservation] = {}
        self.moderated: set[int] = set()
        """The indexes of the items for which output moderation withheld an earlier attempt's last job."""
        self._moderated_cost: defaultdict[int, float] = defaultdict(float)
        self._counted_jobs: set[str] = set()

    def add_earlier(self, index: int, receipt: Receipt) -> None:
        """Count the jobs that a receipt names when the attempt begins."""
        self.count_unused(receipt)
        self._moderated_cost[index] = receipt.moderated_cost(self._run)
        if receipt.state == "failed" and receipt.moderated_jobs(self._run):
            self.moderated.add(index)
        if receipt.state not in (*PAID_STATES, "expired"):
            return
        self.track(index, receipt)
        self._counted_jobs.add(receipt.paid_job.id)
        if receipt.state in PAID_STATES:
            self.paid_states[index] = receipt.state

    def track(self, index: int, receipt: Receipt) -> None:
        """Reserve what the job of a receipt costs, and count it if this run pays for it."""
        budget = self.budget if receipt.run.is_same_run(self._run) else Budget(None)
        reservation = budget.track(price_key(receipt.model, receipt.parameters or {}))
        reservation.record_cost(receipt.paid_job.cost)
        if receipt.image is not None:
            reservation.settle(settled_cost(receipt))
        if receipt.state != "submitted":
            reservation.close()
        self.assign(index, reservation)

    def assign(self, index: int, reservation: Reservation) -> None:
        """Set the reservation of an item's job."""
        self._reservations[index] = reservation

    def reservation(self, index: int) -> Reservation:
        """Return the reservation of an item's job."""
        return self._reservations[index]

    def cost(self, index: int) -> float | None:
        """Return the credits billed for an item's jobs; None if they are unknown, or there is no job."""
        reservation, moderated = self._reservations.get(index), self._moderated_cost[index]
        cost = None if reservation is None else reservation.cost
        return (cost or 0.0) + moderated if moderated else cost

    def supersede(self, index: int, receipt: Receipt) -> None:
        """Count the moderated job of an item, for which another one is submitted.

        :param receipt: Names all moderated jobs of the item.
        """
        self._moderated_cost[index] = receipt.moderated_cost(self._run)
        del self._reservations[index]
        self._counted_jobs.update(receipt.moderated)
        self.in_flight.pop(index, None)
        self.paid_states.pop(index, None)

    def count_unused(self, receipt: Receipt) -> None:
        """Count the jobs of a receipt that this run pays for and does not use."""
        for job, run in receipt.duplicates:
            if run.is_same_run(self._run) and job.id not in self._counted_jobs:
                self._counted_jobs.add(job.id)
                reservation = self.budget.track(price_key(job.model, {}))
                reservation.settle(job.cost)
                reservation.close()


def settled_cost(receipt: Receipt) -> float | None:
    """Return what the finished job of a receipt cost, in credits; None if it is unknown."""
    return None if receipt.image is None else receipt.image.cost
