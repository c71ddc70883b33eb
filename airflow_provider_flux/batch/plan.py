"""The plan of a batch: which images are new, reused or refused, and what they are expected to cost. Submits nothing."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.batch.concurrency import SUBMITS
from airflow_provider_flux.batch.requests import RequestProblem
from airflow_provider_flux.client.catalogue.prices import Estimate, estimate, format_cost, to_usd
from airflow_provider_flux.exceptions import FluxError

if TYPE_CHECKING:
    from airflow_provider_flux.batch.definition import Batch
    from airflow_provider_flux.batch.requests import BatchItem


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image that would be paid for.

    :param price: What it is expected to cost; None: unknown.
    """

    price: Estimate | None


@dataclass(frozen=True, slots=True)
class ReusedImage:
    """An image that is stored, or whose job is paid for or is being submitted by another process.

    :param paid: Credits that this run has paid for it.
    """

    paid: float


@dataclass(frozen=True, slots=True)
class BatchPlan:
    """What a batch would do if it ran now.

    :param new: The images that would be paid for.
    :param reused: The images that would not be paid for again.
    :param refused: The requests that would be refused.
    :param max_cost: Maximum credits; None: no limit.
    """

    new: list[NewImage]
    reused: list[ReusedImage]
    refused: list[RequestProblem]
    max_cost: float | None

    @property
    def estimated_cost(self) -> float:
        """Expected credits of all new images whose price is known."""
        return round(sum(image.price.credits for image in self.new if image.price is not None), 6)

    @property
    def exceeds_max_cost(self) -> bool:
        """Whether the known prices, with what this run has paid already, exceed the maximum."""
        paid = sum(image.paid for image in self.reused)
        # Sums of floats are inexact.
        return self.max_cost is not None and paid + self.estimated_cost > self.max_cost + 1e-9

    @property
    def unknown_prices(self) -> int:
        """Number of new images whose price is unknown."""
        return sum(image.price is None for image in self.new)

    def __str__(self) -> str:
        unknown = f", and {self.unknown_prices} of unknown price" if self.unknown_prices else ""
        return (
            f"{len(self.new)} new, {len(self.reused)} reused, {len(self.refused)} refused; the new images are expected "
            f"to cost {format_cost(self.estimated_cost)}{unknown}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Return flat JSON without prompts."""
        return {
            "counts": {
                "requested": len(self.new) + len(self.reused) + len(self.refused),
                "new": len(self.new),
                "reused": len(self.reused),
                "refused": len(self.refused),
            },
            "refused": [{"request": problem.request_index, "reason": problem.message} for problem in self.refused],
            "estimated_cost": self.estimated_cost,
            "estimated_cost_usd": to_usd(self.estimated_cost),
            "unknown_prices": self.unknown_prices,
            "exceeds_max_cost": self.exceeds_max_cost,
        }


def plan_batch(batch: Batch, problems: Iterable[RequestProblem]) -> BatchPlan:
    """Return the plan of a batch; reads receipts and input images.

    :param batch: The valid requests.
    :param problems: What is invalid in the other requests.
    :raises FluxError: if a store or the API fails, so that the plan is unknown until a retry.
    """
    batch.look_up_receipts()
    with ThreadPoolExecutor(SUBMITS, "flux-plan") as pool:
        decisions = list(pool.map(lambda item: _decide(batch, item), batch.items))
    refused = [*problems, *(decision for decision in decisions if isinstance(decision, RequestProblem))]
    return BatchPlan(
        new=[decision for decision in decisions if isinstance(decision, NewImage)],
        reused=[decision for decision in decisions if isinstance(decision, ReusedImage)],
        refused=sorted(refused, key=lambda problem: problem.request_index),
        max_cost=batch.options.max_cost,
    )


def _decide(batch: Batch, item: BatchItem) -> NewImage | ReusedImage | RequestProblem:
    try:
        submission = batch.submission(item)
        if (receipt := submission.preview()) is not None:
            return ReusedImage(receipt.paid_cost(batch.run))
    except FluxError as error:
        if error.retryable:
            raise
        return RequestProblem(item.request_index, error.message, tuple(error.faults))
    size = submission.images.megapixels(submission.request)
    return NewImage(estimate(item.model, submission.request, size))
