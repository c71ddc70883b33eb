"""One attempt of a batch: runs all items at once, and records how each of them ends."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from airflow_provider_flux import metrics
from airflow_provider_flux.batch.budget import Budget, NotSubmittedError
from airflow_provider_flux.batch.concurrency import Concurrency, run_in_pool
from airflow_provider_flux.batch.failure_policy import FailurePolicy
from airflow_provider_flux.batch.ledger import JobLedger
from airflow_provider_flux.batch.limiter import AdaptiveLimiter
from airflow_provider_flux.batch.manifest import ItemOutcome, ItemState, count_outcomes
from airflow_provider_flux.batch.pipeline import ItemPipeline
from airflow_provider_flux.batch.progress import Progress
from airflow_provider_flux.exceptions import FluxError, FluxModeratedError, FluxReceiptError, FluxServiceError

if TYPE_CHECKING:
    from airflow_provider_flux.batch.definition import Batch
    from airflow_provider_flux.batch.requests import BatchItem
    from airflow_provider_flux.receipts.receipt import Receipt

log = logging.getLogger(__name__)


class BatchRunner:
    """Runs a batch once.

    :param batch: Its items, and what they have in common.
    """

    def __init__(self, batch: Batch) -> None:
        self.outcomes: list[ItemOutcome] = []
        """How each request ended, in the order of the requests; empty until all receipts are read."""
        self.policy = FailurePolicy(batch.options)
        self._batch = batch
        self._ledger = JobLedger(Budget(batch.options.max_cost), batch.run)

    @property
    def cost(self) -> float:
        """Credits billed for this run, including its earlier attempts, as far as the API reported them."""
        return self._ledger.budget.billed

    @property
    def counts(self) -> dict[str, int]:
        """How many requests ended in which state."""
        return count_outcomes(self.outcomes)

    @property
    def in_flight(self) -> list[str]:
        """The ids of the jobs that have not ended."""
        return list(self._ledger.in_flight.values())

    async def run(self) -> None:
        """Bring every item to its end, which ``outcomes`` records.

        :raises FluxStoreError: if the receipts cannot be read; nothing was submitted.
        """
        from airflow_provider_flux.client.client import shared_client

        batch, options = self._batch, self._batch.options
        pools = Concurrency.create(options.max_active)
        try:
            await self._read_receipts(pools)
            self.outcomes = [self._outcome(item, "not_submitted") for item in batch.items]
            limiter = AdaptiveLimiter(options.max_active, options.timeout)
            progress = Progress(len(batch.items), limiter, self._ledger.budget)
            async with shared_client(batch.hook.endpoint) as client, asyncio.TaskGroup() as group:
                pipeline = ItemPipeline(batch, client, pools, limiter, self._ledger, self.policy, progress)
                for item in self._submission_order():
                    group.create_task(self._run_item(item, pipeline))
        finally:
            pools.shut_down(wait_for_captures=not self._ledger.in_flight)
            self._record_interrupted()

    async def _read_receipts(self, pools: Concurrency) -> None:
        """Read all receipts, and count what earlier attempts of this run have paid."""
        items = await run_in_pool(pools.receipt_reads, self._batch.look_up_receipts)
        reads = (run_in_pool(pools.receipt_reads, self._read_receipt, item) for item in items)
        stored = []
        for item, receipt in zip(items, await asyncio.gather(*reads), strict=True):
            if receipt is not None:
                self._ledger.add_earlier(item.index, receipt)
                if receipt.image is not None and receipt.run.is_same_run(self._batch.run):
                    stored.append((receipt.paid_job, receipt.image.cost))
        # An attempt that ended before it recorded these costs in the budgets left them reserved.
        await run_in_pool(pools.receipt_reads, self._batch.hook.reservations.settle_finished, stored)

    def _read_receipt(self, item: BatchItem) -> Receipt | None:
        try:
            return self._batch.receipts(item).read()
        except FluxReceiptError:
            # Fails this item alone, when it is submitted.
            return None

    def _submission_order(self) -> list[BatchItem]:
        """Return the items, first those whose job may be ready: download URLs expire after about ten minutes."""
        states = self._ledger.paid_states
        return sorted(self._batch.items, key=lambda item: states.get(item.index) != "submitted")

    async def _run_item(self, item: BatchItem, pipeline: ItemPipeline) -> None:
        """Run one item and record its outcome, whatever it is."""
        tags = metrics.tags(item.model, self._batch.hook.endpoint.gateway, self._batch.run.dag_id)
        try:
            image = await pipeline.run(item)
        except NotSubmittedError as error:
            self.outcomes[item.index] = self._outcome(item, "not_submitted", error=str(error))
            self.policy.on_not_submitted(error)
        except FluxError as error:
            metrics.failed(type(error).__name__, tags)
            self._fail(item, error, pipeline.progress)
        except Exception as error:
            log.exception("Request %d failed with an unexpected error.", item.request_index)
            metrics.failed(type(error).__name__, tags)
            message = f"{type(error).__name__}: {error}"
            unexpected = FluxServiceError(message, billing="The receipt of the image shows what was billed.")
            self._fail(item, unexpected, pipeline.progress)
        else:
            outcome = self._outcome(item, "stored", image=image)
            (metrics.reused(tags) if outcome.is_reused else metrics.ready(image, tags))
            self._end(outcome, pipeline.progress)

    def _fail(self, item: BatchItem, error: FluxError, progress: Progress) -> None:
        state: ItemState = "moderated" if isinstance(error, FluxModeratedError) else "failed"
        message = f"{type(error).__name__}: {error.message}"
        self._end(self._outcome(item, state, job_id=error.job_id, error=message), progress)
        self.policy.on_error(item.request_index, error)

    def _end(self, outcome: ItemOutcome, progress: Progress) -> None:
        self._ledger.in_flight.pop(outcome.item.index, None)
        self.outcomes[outcome.item.index] = outcome
        progress.count(outcome.state, outcome.is_reused)
        progress.log_if_due()

    def _record_interrupted(self) -> None:
        """Record the items whose jobs are in flight when the attempt ends; after the threads, which may add some."""
        message = "The task ended before the image was stored; the next attempt resumes this job."
        for index, job_id in self._ledger.in_flight.items():
            item = self._batch.items[index]
            self.outcomes[index] = self._outcome(item, "failed", job_id=job_id, error=message)

    def _outcome(self, item: BatchItem, state: ItemState, **details: Any) -> ItemOutcome:
        return ItemOutcome(item, state, cost=self._ledger.cost(item.index), **details)
