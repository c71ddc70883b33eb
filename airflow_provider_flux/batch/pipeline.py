"""What happens to one item of a batch: find its job or submit one, wait for it, store its image.

The receipt beside the image records each step, so that another attempt resumes from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_flux.batch.budget import NotSubmittedError, price_key
from airflow_provider_flux.batch.concurrency import run_in_pool
from airflow_provider_flux.batch.ledger import settled_cost
from airflow_provider_flux.exceptions import (
    FluxBudgetReachedError,
    FluxContentModeratedError,
    FluxError,
    FluxImageExpiredError,
    FluxRateLimitError,
)
from airflow_provider_flux.images.transfer import download_and_store
from airflow_provider_flux.receipts.lifecycle import failure_recorded
from airflow_provider_flux.receipts.moderation import check_resubmit
from airflow_provider_flux.receipts.receipt import PAID_STATES
from airflow_provider_flux.receipts.submission import InSubmission

if TYPE_CHECKING:
    from airflow_provider_flux.batch.concurrency import Concurrency
    from airflow_provider_flux.batch.definition import Batch
    from airflow_provider_flux.batch.failure_policy import FailurePolicy
    from airflow_provider_flux.batch.ledger import JobLedger
    from airflow_provider_flux.batch.limiter import AdaptiveLimiter
    from airflow_provider_flux.batch.progress import Progress
    from airflow_provider_flux.batch.requests import BatchItem
    from airflow_provider_flux.client.client import AsyncFluxClient
    from airflow_provider_flux.client.jobs import Job
    from airflow_provider_flux.client.responses import Result
    from airflow_provider_flux.receipts.receipt import Receipt
    from airflow_provider_flux.receipts.submission import Submission
    from airflow_provider_flux.results import ImageResult

log = logging.getLogger(__name__)

MIN_WAIT = 5.0
"""Minimum seconds for which a job is polled, even if an earlier attempt submitted it long ago."""
STORE_RETRY_DELAYS = (2.0, 10.0, 30.0)
"""Seconds before each retry of storing an image: Airflow's retry of a long batch would come after its URL expired."""


@dataclass(frozen=True)
class ItemPipeline:
    """Processes the items of a batch, one per call; all items share one pipeline.

    :param batch: Gives each item its store, its receipt and its submission.
    :param client: Polls the jobs.
    :param pools: Where blocking calls run.
    :param limiter: Bounds the jobs in flight.
    :param ledger: Knows the job of each item and its cost.
    :param policy: Says whether submitting has stopped.
    :param progress: Logs that submits are refused.
    """

    batch: Batch
    client: AsyncFluxClient
    pools: Concurrency
    limiter: AdaptiveLimiter
    ledger: JobLedger
    policy: FailurePolicy
    progress: Progress

    async def run(self, item: BatchItem) -> ImageResult:
        """Return the item's image, which is stored; submits further jobs as ``moderation_retries`` allows.

        :raises NotSubmittedError: if the request was not submitted.
        :raises FluxError: if there is no image.
        """
        moderated: FluxContentModeratedError | None = None
        if item.index in self.ledger.moderated:
            moderated = await run_in_pool(self.pools.submits, self._check_moderated, item)
        while True:
            try:
                return await self._run_job(item)
            except FluxContentModeratedError as error:
                moderated = error
                receipt = await run_in_pool(self.pools.receipt_reads, self._check_resubmit, item, error)
                self.ledger.supersede(item.index, receipt)
            except NotSubmittedError as reason:
                if moderated is None:
                    raise
                raise FluxContentModeratedError(
                    f"{moderated.message} No further job is submitted: {reason}.",
                    job_id=moderated.job_id,
                    billing=moderated.billing,
                ) from None

    def _check_moderated(self, item: BatchItem) -> FluxContentModeratedError | None:
        """Return the error that an earlier attempt of this run met, if another job may be submitted after it."""
        receipt = self.batch.submission(item).find_moderated()
        if receipt is None:
            return None
        error = FluxContentModeratedError(receipt.reason, job_id=receipt.paid_job.id)
        self._check_resubmit(item, error)
        return error

    def _check_resubmit(self, item: BatchItem, error: FluxContentModeratedError) -> Receipt:
        retries = self.batch.options.moderation_retries
        return check_resubmit(self.batch.receipts(item), error, self.batch.run, retries)

    async def _run_job(self, item: BatchItem) -> ImageResult:
        """Return the item's image: of its stored image or paid job, or of a new job."""
        with contextlib.ExitStack() as in_flight:
            receipt = await self._find(item, in_flight) or await self._submit(item, in_flight)
            paid_by = receipt.paid_by_other_than(self.batch.run)
            moderated = receipt.moderated_cost(self.batch.run), receipt.moderated_jobs(self.batch.run)
            if receipt.state == "stored" and receipt.image is not None:
                return receipt.image.as_reused(self.batch.run, paid_by).with_unused(*moderated)
            result = await self._wait(item, receipt)
            # Before the job's capacity is released: as long as the store is slow, no new job may take its place.
            await self.pools.store_backlog.acquire()
        try:
            image = await self._store(item, result)
        finally:
            self.pools.store_backlog.release()
        image = image if paid_by is None else image.as_reused(self.batch.run, paid_by)
        return image.with_unused(*moderated)

    async def _find(self, item: BatchItem, in_flight: contextlib.ExitStack) -> Receipt | None:
        """Return the receipt of the item's stored image or paid job; None if it has neither.

        :param in_flight: Holds the job's reservation and capacity.
        """
        if item.index not in self.ledger.paid_states:
            return None
        with contextlib.ExitStack() as held:
            reservation = held.enter_context(self.ledger.reservation(item.index))
            # Input images take memory, which the smaller pool bounds.
            pool = self.pools.submits if item.has_input_images else self.pools.receipt_reads
            receipt = await run_in_pool(pool, self._find_existing, item)
            if receipt is None:
                return None
            if receipt.state not in PAID_STATES:
                if receipt.state == "failed":
                    # Failed since the receipts were read; the API does not bill failed jobs.
                    reservation.refund()
                return None
            if receipt.state == "stored":
                # Another process may have stored it since the receipts were read.
                reservation.settle(settled_cost(receipt))
            else:
                held.enter_context(self.limiter.occupy())
            in_flight.enter_context(held.pop_all())
            return receipt

    def _find_existing(self, item: BatchItem) -> Receipt | None:
        receipts = self.batch.receipts(item)
        # Whether an image is stored is checked anyway; a job may have ended since its receipt was read.
        is_stored = self.ledger.paid_states[item.index] == "stored"
        return self.batch.submission(item).find_existing(receipts.recall() if is_stored else receipts.read())

    async def _submit(self, item: BatchItem, in_flight: contextlib.ExitStack) -> Receipt:
        """Submit the request; if another process is submitting it, wait for that job instead.

        :param in_flight: Holds the job's reservation and capacity.
        """
        while True:
            attempt = await self._take_turn(item, in_flight)
            if not isinstance(attempt, InSubmission):
                return attempt
            await asyncio.sleep(attempt.seconds)

    async def _take_turn(self, item: BatchItem, in_flight: contextlib.ExitStack) -> Receipt | InSubmission:
        """Submit the request as soon as it has a turn and there is capacity for its job."""
        with contextlib.ExitStack() as held:
            # A refused request (HTTP 429) keeps its turn, and so its place before later ones.
            async with self.pools.submit_turns:
                self.policy.raise_if_stopped()
                submission = await self._prepare(item)
                attempt = await self.limiter.submit(functools.partial(self._send, item, submission, held))
                held.callback(self.limiter.release)
            if not isinstance(attempt, InSubmission):
                in_flight.enter_context(held.pop_all())
            return attempt

    async def _prepare(self, item: BatchItem) -> Submission:
        if item.has_input_images:  # They are read; without them, there is nothing to wait for.
            return await run_in_pool(self.pools.submits, self.batch.submission, item)
        return self.batch.submission(item)

    async def _send(
        self, item: BatchItem, submission: Submission, held: contextlib.ExitStack
    ) -> Receipt | InSubmission:
        """Submit the request as soon as ``max_cost`` allows it.

        :param held: Holds the job's reservation, if this run pays for the job.
        """
        key = price_key(item.model, submission.request, submission.images.megapixels(submission.request))
        with contextlib.ExitStack() as sending:
            reservation = sending.enter_context(await self.ledger.budget.reserve(key))
            # The wait for the price may have been long.
            self.policy.raise_if_stopped()
            try:
                attempt = await run_in_pool(self.pools.submits, self._attempt, item, submission)
            except FluxRateLimitError:
                self.progress.log_if_due()
                raise
            except FluxBudgetReachedError as error:
                self.policy.on_budget(error)
            if isinstance(attempt, InSubmission):
                reservation.refund()
                return attempt
            self.ledger.count_unused(attempt)
            if attempt.state == "stored" or attempt.paid_by_other_than(self.batch.run) is not None:
                reservation.refund()
                self.ledger.track(item.index, attempt)
            else:
                self.ledger.assign(item.index, reservation)
                held.enter_context(sending.pop_all())
            return attempt

    def _attempt(self, item: BatchItem, submission: Submission) -> Receipt | InSubmission:
        attempt = submission.attempt(self.batch.hook)
        if not isinstance(attempt, InSubmission):
            # In the thread: the job is in flight even if the task is interrupted before the event loop knows it.
            self.ledger.in_flight[item.index] = attempt.paid_job.id
        return attempt

    async def _wait(self, item: BatchItem, receipt: Receipt) -> Result:
        """Return the result of the finished job."""
        job, options = receipt.paid_job, self.batch.options
        self.ledger.in_flight[item.index] = job.id
        self.ledger.reservation(item.index).record_cost(job.cost)
        submitted_at = time.time() if job.submitted_at is None else job.submitted_at
        deadline = max(submitted_at + options.timeout, time.time() + MIN_WAIT)
        try:
            result = await self.client.wait(job, deadline, options.poll_interval, quiet=True)
        except FluxError as error:
            await run_in_pool(self.pools.receipt_reads, self._record_failure, item, job, error)
            raise
        self.ledger.reservation(item.index).settle(result.cost)
        return result

    def _record_failure(self, item: BatchItem, job: Job, error: FluxError) -> None:
        """Record in the receipt, and in the budgets, how the job ended."""
        self.batch.hook.settle(job, error=error)
        with contextlib.suppress(FluxError), failure_recorded(self.batch.receipts(item), self.batch.options.on_expired):
            raise error

    async def _store(self, item: BatchItem, result: Result) -> ImageResult:
        """Download and store the image, with retries."""
        for delay in (*STORE_RETRY_DELAYS, None):
            try:
                return await run_in_pool(self.pools.captures, self._download_and_store, item, result)
            except FluxError as error:
                if delay is None or not error.retryable or isinstance(error, FluxImageExpiredError):
                    raise
                log.info("Storing the image of job %s failed; retry in %g s: %s", result.job.id, delay, error.message)
                await asyncio.sleep(delay)
        raise AssertionError("the last attempt returns or raises")

    def _download_and_store(self, item: BatchItem, result: Result) -> ImageResult:
        options = self.batch.options
        try:
            receipts, store = self.batch.receipts(item), self.batch.store(item)
            with failure_recorded(receipts, options.on_expired, seed=result.seed):
                return download_and_store(self.batch.hook.get_conn(), result, store, options.max_bytes, receipts)
        finally:
            # After the image, whose URL expires.
            self.batch.hook.settle(result.job, result.cost)
