"""The loop of a batch: each request is bought, waited for and stored on its own, many at once.

What blocks (S3, the submit) runs in threads, what waits runs on the event loop. A receipt beside each image says
how far it came, so that another try goes on from there.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar, cast

from airflow_provider_flux import metrics
from airflow_provider_flux.batch.budget import Budget, Charge, MaxCostError, NotSubmittedError, price_key
from airflow_provider_flux.batch.limiter import AdaptiveLimiter
from airflow_provider_flux.batch.progress import Progress
from airflow_provider_flux.client.catalogue.validation import build_request
from airflow_provider_flux.exceptions import (
    FluxAuthenticationError,
    FluxConfigurationError,
    FluxCreditsError,
    FluxError,
    FluxImageExpiredError,
    FluxModeratedError,
    FluxRateLimitError,
    FluxReceiptError,
    FluxServiceError,
)
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.images.transfer import download_and_store
from airflow_provider_flux.receipts.lifecycle import failure_recorded
from airflow_provider_flux.receipts.receipt import PAID_STATES, Receipt
from airflow_provider_flux.receipts.stores import SidecarReceiptStore
from airflow_provider_flux.receipts.submission import InSubmission, Submission
from airflow_provider_flux.redaction import shown_prompt
from airflow_provider_flux.results import ImageResult

if TYPE_CHECKING:
    from airflow_provider_flux.batch.requests import Item
    from airflow_provider_flux.client.client import AsyncFluxClient
    from airflow_provider_flux.client.responses import Result
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.identity import TaskIdentity
    from airflow_provider_flux.receipts.stores import ReceiptStore
    from airflow_provider_flux.storage.base import ImageStore

log = logging.getLogger(__name__)

STORED, MODERATED, FAILED, NOT_SUBMITTED = "stored", "moderated", "failed", "not_submitted"
READS = 8
"""Receipts that are read at once; botocore keeps ten connections, and complains of more."""
SUBMITS = 4
"""Requests that are filled with their input images and sent at once: each may take a hundred megabytes."""
CAPTURES = 4
"""Images that are checked and stored at once: each takes memory to decode it."""
STORE_AGAIN = (2.0, 10.0, 30.0)
"""Seconds after which an image that could not be stored is stored again."""
OF_THE_ACCOUNT = (FluxAuthenticationError, FluxConfigurationError, FluxCreditsError, FluxRateLimitError)
"""What is refused to one request for one of these reasons is refused to all."""

T = TypeVar("T")

Found = tuple["Result | ImageResult", "TaskIdentity | None"]
"""The result of a finished job, or the description of a stored image; and the task that paid, if it is another one."""


@dataclass(frozen=True)
class Rules:
    """What an author decided for a whole batch; see FluxGenerateBatchOperator."""

    max_active: int = 24
    max_failures: int | None = None
    max_cost: float | None = None
    timeout: float = 600.0
    poll_interval: float | None = None
    max_bytes: int = 0
    strict: bool = False
    reuse: str = "run"
    on_orphan: str = "resubmit"
    on_expired: str = "fail"
    on_moderated: str = "fail"
    replace: bool = True
    aws_conn_id: str | None = None


@dataclass
class BatchRun:
    """One try of a batch.

    :param folder: Any place in the folder of the images; each image is stored beside it.
    :param run: Which task asks.
    """

    items: list[Item]
    hook: FluxHook
    folder: ImageStore
    run: TaskIdentity
    rules: Rules
    lines: list[dict[str, Any]] = field(default_factory=list)
    errors: list[FluxError] = field(default_factory=list)
    in_flight: dict[int, str] = field(default_factory=dict)
    """The job of each item that has one and has not come to its end."""
    reasons: list[str] = field(default_factory=list)
    """Why requests were not submitted."""
    over_max_cost: int = 0
    """Requests that were not submitted because of ``max_cost``."""
    stopped: str = ""
    """Why nothing more is submitted, if so."""

    @property
    def cost(self) -> float:
        """Credits that this run pays, in all its attempts, as far as the API reports them."""
        return self._budget.paid

    async def finish(self) -> None:
        """Bring every item to its end; afterwards ``lines`` tells of each, in the order given.

        :raises FluxStoreError: if the receipts cannot be read; nothing was submitted.
        """
        from airflow_provider_flux.client.client import shared_client

        self._budget = Budget(self.rules.max_cost)
        self._charges: dict[int, Charge] = {}
        self._counted: set[str] = set()
        self._front = asyncio.Semaphore(SUBMITS)
        self._backlog = asyncio.Semaphore(2 * self.rules.max_active)
        self._reads = ThreadPoolExecutor(READS, "flux-receipts")
        self._submits = ThreadPoolExecutor(SUBMITS, "flux-submit")
        self._captures = ThreadPoolExecutor(CAPTURES, "flux-capture")
        try:
            states = await self._take_stock()
            self.lines = [self._line(item, NOT_SUBMITTED) for item in self.items]
            self._slots, self._progress = (
                AdaptiveLimiter(self.rules.max_active, self.rules.timeout),
                Progress(len(self.items)),
            )
            async with shared_client(self.hook.endpoint) as client, asyncio.TaskGroup() as group:
                # What may be ready comes first: links to images live ten minutes.
                for item in sorted(self.items, key=lambda item: states.get(item.index) != "submitted"):
                    group.create_task(self._one(item, client, item.index in states))
        finally:
            # What a thread has begun goes on to its end: a submit's answer must find its receipt.
            self._submits.shutdown(cancel_futures=True)
            self._reads.shutdown(cancel_futures=True)
            self._captures.shutdown(wait=not self.in_flight, cancel_futures=True)
            for index, job_id in self.in_flight.items():
                told = "The task ended before the image was there; running it again asks for this job first."
                self.lines[index] = {**self._line(self.items[index], FAILED), "id": job_id, "error": told}

    async def _take_stock(self) -> dict[int, str]:
        """Return the receipts' states of those items that may be paid for, and count what this run has paid."""
        states: dict[int, str] = {}
        receipts = await asyncio.gather(*(self._in(self._reads, self._reader(item)) for item in self.items))
        for index, receipt in enumerate(receipts):
            if receipt is not None:
                self._count_unused(receipt)
            if receipt is None or receipt.state not in (*PAID_STATES, "expired"):
                continue
            self._charges[index] = self._charge_of(receipt)
            self._counted.add(receipt.paid_job.id)
            if receipt.state in PAID_STATES:
                states[index] = receipt.state
        return states

    def _charge_of(self, receipt: Receipt) -> Charge:
        charge = self._budget_of(receipt).count(price_key(receipt.model, receipt.parameters or {}))
        charge.tell(receipt.paid_job.cost)
        if receipt.image is not None:
            charge.finish(receipt.image.cost)
        elif receipt.state == "stored":
            charge.finish(None)
        if receipt.state != "submitted":
            charge.close()
        return charge

    def _count_unused(self, receipt: Receipt) -> None:
        """Count the jobs that this run pays for and does not use, each once."""
        for job, run in receipt.duplicates:
            if run.is_same_run(self.run) and job.id not in self._counted:
                self._counted.add(job.id)
                charge = self._budget.count(price_key(job.model, {}))
                charge.finish(job.cost)
                charge.close()

    def _budget_of(self, receipt: Receipt) -> Budget:
        """Return the budget that a receipt's job counts in: what another run pays is no cost of this one."""
        return self._budget if receipt.run.is_same_run(self.run) else Budget(None)

    def _reader(self, item: Item) -> Callable[[], Receipt | None]:
        def read() -> Receipt | None:
            try:
                return self._receipts(item).read()
            except FluxReceiptError:
                # It will fail its item alone.
                return None

        return read

    @property
    def counts(self) -> dict[str, int]:
        """How many requests ended how."""
        states = [line["state"] for line in self.lines]
        reused = sum(bool(line.get("reused")) for line in self.lines)
        told = {"requested": len(states), "stored": states.count(STORED), "reused": reused}
        return {**told, **{name.replace(" ", "_"): states.count(name) for name in (MODERATED, FAILED, NOT_SUBMITTED)}}

    async def _one(self, item: Item, client: AsyncFluxClient, is_bought: bool) -> None:
        tags = metrics.tags(item.model, self.hook.endpoint.gateway)
        try:
            image = await self._image(item, client, is_bought)
        except NotSubmittedError as error:
            self.over_max_cost += isinstance(error, MaxCostError)
            self._leave_out(item, str(error))
        except FluxError as error:
            metrics.failed(type(error).__name__, tags)
            self._fail(item, error)
        except Exception as error:
            log.exception("Request %d failed in a way that is not foreseen.", item.index)
            metrics.failed(type(error).__name__, tags)
            what = f"{type(error).__name__}: {error}"
            self._fail(item, FluxServiceError(what, billing="Its receipt tells what was paid."))
        else:
            (metrics.reused(tags) if image.reused else metrics.ready(image, tags))
            self._end(
                item,
                STORED,
                **{name: value for name, value in image.to_dict().items() if name not in ("status", "model")},
            )

    async def _image(self, item: Item, client: AsyncFluxClient, is_paid: bool) -> ImageResult:
        """Return the description of the image.

        :raises NotSubmittedError: if it was not submitted.
        """
        found = await self._find(item, client) if is_paid else None
        result, paid_by = found or await self._buy_patiently(item, client)
        if isinstance(result, ImageResult):
            return result.as_reused(self.run, paid_by)
        try:
            image = await self._store_patiently(item, result)
        finally:
            self._backlog.release()
        return image if paid_by is None else image.as_reused(self.run, paid_by)

    async def _find(self, item: Item, client: AsyncFluxClient) -> Found | None:
        """Return the image that is there, or the result of the job that is paid for, if so."""
        with self._charges[item.index]:
            # Input images are in memory while their request is looked at.
            threads = self._submits if item.request is None else self._reads
            found = await self._in(threads, lambda: self._submission(item).find_existing())
            if found is None or found.state not in PAID_STATES:
                if found is not None and found.state == "failed":
                    self._charges[item.index].refund()
                return None
            if found.state == "stored":
                # Another process has stored it since the receipts were read.
                self._charges[item.index].finish(None if found.image is None else found.image.cost)
                return cast("ImageResult", found.image), found.paid_by_other_than(self.run)
            with self._slots.taken():
                return await self._result(item, client, found), found.paid_by_other_than(self.run)

    async def _buy_patiently(self, item: Item, client: AsyncFluxClient) -> Found:
        """Submit the request, or wait until another process has submitted it."""
        while True:
            found = await self._buy(item, client)
            if not isinstance(found, InSubmission):
                return found
            await asyncio.sleep(found.seconds)

    async def _buy(self, item: Item, client: AsyncFluxClient) -> Found | InSubmission:
        """Submit the request as soon as there is capacity for it, and return its job's result."""
        with contextlib.ExitStack() as held:
            # Whoever is refused stays in front.
            async with self._front:
                self._go_on()
                submission = await self._in(self._submits, functools.partial(self._submission, item))
                receipt = await self._slots.submit(functools.partial(self._submit, item, submission, held))
                held.callback(self._slots.release)
            if isinstance(receipt, InSubmission):
                return receipt
            paid_by = receipt.paid_by_other_than(self.run)
            if receipt.state == "stored":
                return cast("ImageResult", receipt.image), paid_by
            return await self._result(item, client, receipt), paid_by

    async def _submit(self, item: Item, submission: Submission, held: contextlib.ExitStack) -> Receipt | InSubmission:
        """Submit as far as ``max_cost`` allows.

        :param held: Holds the job's charge from now on, if one was submitted.
        """
        with contextlib.ExitStack() as sending:
            charge = sending.enter_context(await self._budget.set_aside(price_key(item.model, submission.request)))
            self._go_on()
            try:
                receipt = await self._in(self._submits, functools.partial(self._attempt, item, submission))
            except FluxRateLimitError:
                self._tell()
                raise
            if isinstance(receipt, Receipt):
                self._count_unused(receipt)
            is_own = (
                isinstance(receipt, Receipt) and receipt.state != "stored" and not receipt.paid_by_other_than(self.run)
            )
            if not is_own:
                charge.refund()
                if isinstance(receipt, Receipt):
                    self._charges[item.index] = self._charge_of(receipt)
                return receipt
            self._charges[item.index] = charge
            held.enter_context(sending.pop_all())
            return receipt

    def _attempt(self, item: Item, submission: Submission) -> Receipt | InSubmission:
        receipt = submission.attempt(self.hook)
        if isinstance(receipt, Receipt):
            # Noted in the thread: its answer counts even if nothing waits for it any more.
            self.in_flight[item.index] = receipt.paid_job.id
        return receipt

    def _submission(self, item: Item) -> Submission:
        rules, store = self.rules, self.folder.sibling(item.file_name)
        images, request = InputImages(item.model, self.hook.get_conn(), rules.aws_conn_id), item.request
        if request is None:
            fields, problems = images.tokenize(item.fields)
            request = build_request(item.model, fields, self.hook.endpoint.gateway, rules.strict, problems)
        policies = (rules.reuse, rules.on_orphan, rules.on_expired, rules.replace)
        receipts = self._receipts(item)
        return Submission(
            item.model, request, images, self.run, receipts, store, *policies, wait_for_capacity=False, quiet=True
        )

    def _receipts(self, item: Item) -> SidecarReceiptStore:
        return SidecarReceiptStore(self.folder.sibling(item.file_name))

    async def _result(self, item: Item, client: AsyncFluxClient, receipt: Receipt) -> Result:
        """Wait for the job, and for room among those whose images are to be stored: their links live ten minutes."""
        job = receipt.paid_job
        self.in_flight[item.index] = job.id
        self._charges[item.index].tell(job.cost)
        began = time.time() if job.submitted_at is None else job.submitted_at
        # An old job that a retry has found is looked at all the same.
        deadline = max(began + self.rules.timeout, time.time() + 5.0)
        try:
            result = await client.wait(job, deadline, self.rules.poll_interval, quiet=True)
        except FluxError as error:
            await self._in(self._reads, functools.partial(_record, self._receipts(item), self.rules.on_expired, error))
            raise
        self._charges[item.index].finish(result.cost)
        await self._backlog.acquire()
        return result

    async def _store_patiently(self, item: Item, result: Result) -> ImageResult:
        """Store the image, now or a little later: the retry of a long batch comes when its link is dead."""
        for pause in (*STORE_AGAIN, None):
            try:
                return await self._in(self._captures, lambda: self._store(item, result))
            except FluxError as error:
                if pause is None or not error.retryable or isinstance(error, FluxImageExpiredError):
                    raise
                log.info("Storing the image of job %s again in %g s: %s", result.job.id, pause, error.message)
                await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _store(self, item: Item, result: Result) -> ImageResult:
        store = self.folder.sibling(item.file_name)
        with failure_recorded(self._receipts(item), self.rules.on_expired, seed=result.seed):
            return download_and_store(self.hook.get_conn(), result, store, self.rules.max_bytes)

    def _fail(self, item: Item, error: FluxError) -> None:
        told = {"id": error.job_id, "error": f"{type(error).__name__}: {error.message}"}
        if isinstance(error, FluxModeratedError):
            self._end(item, MODERATED, **told)
            if self.rules.on_moderated == "skip":
                return
        else:
            self._end(item, FAILED, **told)
        log.warning("Request %d: %s", item.index, error.message)
        self.errors.append(error)
        if isinstance(error, OF_THE_ACCOUNT):
            self._stop(error.message.rstrip("."))
        if self.rules.max_failures is not None and len(self.errors) > self.rules.max_failures:
            self._stop(f"{len(self.errors)} requests have failed")

    def _stop(self, why: str) -> None:
        if not self.stopped:
            log.warning("Nothing more is submitted: %s. What is in flight is waited for and stored.", why)
            self.stopped = why

    def _go_on(self) -> None:
        if self.stopped:
            raise NotSubmittedError(self.stopped)

    def _leave_out(self, item: Item, why: str) -> None:
        if why not in self.reasons:
            self.reasons.append(why)
            if why != self.stopped:
                log.warning("Not everything is submitted: %s.", why)
        self.lines[item.index]["error"] = why

    def _end(self, item: Item, state: str, **told: Any) -> None:
        self.in_flight.pop(item.index, None)
        self.lines[item.index] = {**self._line(item, state), **told}
        self._progress.end(state, bool(told.get("reused")))
        self._tell()

    def _tell(self) -> None:
        self._progress.tell(self._slots.active, self._slots.refusals, self.cost)

    def _line(self, item: Item, state: str) -> dict[str, Any]:
        charge = self._charges.get(item.index)
        nothing = dict.fromkeys(("uri", "id", "seed", "cost", "error"))
        told = {"index": item.index, "state": state, "model": item.model, "prompt": shown_prompt(item.fields)}
        return {**told, "file_name": item.file_name, **nothing, "cost": None if charge is None else charge.cost}

    async def _in(self, threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, function)


def _record(receipts: ReceiptStore, on_expired: str, error: FluxError) -> None:
    """Write into the receipt how the job ended."""
    try:
        with failure_recorded(receipts, on_expired):
            raise error
    except FluxError:
        pass
