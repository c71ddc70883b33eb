"""The loop of a batch: each request is bought, waited for and stored on its own, many at once.

What blocks (S3, the submit) runs in threads, what waits runs on the event loop. A receipt beside each image says
how far it came, so that another try goes on from there.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_flux import metrics
from airflow_provider_flux.client.errors import (
    FluxError,
    FluxImageExpiredError,
    FluxModeratedError,
    FluxRateLimitError,
    FluxServiceError,
)
from airflow_provider_flux.client.slots import Slots
from airflow_provider_flux.client.validation import prepare
from airflow_provider_flux.images.delivery import deliver
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.images.receipts import BesideImage, FluxReceiptError, Receipt
from airflow_provider_flux.operators.budget import Budget, OverBudgetError
from airflow_provider_flux.operators.progress import Progress
from airflow_provider_flux.operators.purchase import BOUGHT, Purchase, outcome_noted

if TYPE_CHECKING:
    from airflow_provider_flux.client.answers import Result
    from airflow_provider_flux.client.client import AsyncFluxClient
    from airflow_provider_flux.client.jobs import Job
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.images.receipts import Book, Run
    from airflow_provider_flux.images.stores import Store
    from airflow_provider_flux.operators.requests import Item

log = logging.getLogger(__name__)

STORED, MODERATED, FAILED, NOT_SUBMITTED = "stored", "moderated", "failed", "not submitted"
CAPTURES = 4
"""Images that are checked and stored at once: each takes memory to decode it."""
STORE_AGAIN = (2.0, 10.0, 30.0)
"""Seconds after which an image that could not be stored is stored again."""

T = TypeVar("T")


@dataclass(frozen=True)
class Rules:
    """What an author decided for a whole batch; see FluxGenerateBatchOperator."""

    max_active: int = 24
    stop_after: int | None = None
    max_cost: float | None = None
    timeout: float = 600.0
    poll_interval: float | None = None
    max_bytes: int = 0
    strict: bool = False
    reuse: str = "run"
    on_orphan: str = "resubmit"
    on_expired: str = "fail"
    on_moderated: str = "fail"
    aws_conn_id: str | None = None


@dataclass
class BatchRun:
    """One try of a batch.

    :param folder: Any place in the folder of the images; each image lies beside it.
    :param run: Which task asks.
    """

    items: list[Item]
    hook: FluxHook
    folder: Store
    run: Run
    rules: Rules
    lines: list[dict[str, Any]] = field(default_factory=list)
    errors: list[FluxError] = field(default_factory=list)
    in_flight: dict[int, str] = field(default_factory=dict)
    """The job of each item that has one and has not come to its end."""
    stopped: str = ""
    """Why nothing more is submitted, if so."""

    @property
    def cost(self) -> float:
        """Credits that this run, with all its tries, pays, as far as the API told."""
        return self._budget.paid

    async def finish(self) -> None:
        """Bring every item to its end; afterwards ``lines`` tells of each, in the order given.

        :raises FluxStoreError: if the receipts cannot be read; nothing was submitted.
        """
        from airflow_provider_flux.client.client import shared_client

        self._slots, self._budget = Slots(self.rules.max_active), Budget(self.rules.max_cost)
        self._backlog = asyncio.Semaphore(2 * self.rules.max_active)
        self._progress = Progress(len(self.items))
        self._threads = ThreadPoolExecutor(self.rules.max_active, "flux-submit")
        self._captures = ThreadPoolExecutor(CAPTURES, "flux-capture")
        try:
            known = await self._take_stock()
            self.lines = [self._line(item, NOT_SUBMITTED) for item in self.items]
            async with shared_client(self.hook.endpoint) as client, asyncio.TaskGroup() as group:
                # What is paid for comes first: links to images live ten minutes.
                for item in sorted(self.items, key=lambda item: item.index not in known):
                    group.create_task(self._one(item, client, item.index in known))
        finally:
            # What a thread has begun goes on to its end: a submit's answer must find its receipt.
            self._threads.shutdown(cancel_futures=True)
            self._captures.shutdown(wait=not self.in_flight, cancel_futures=True)
            for index, job_id in self.in_flight.items():
                told = "The task ended before the image was there; running it again asks for this job first."
                self.lines[index] = {**self._line(self.items[index], FAILED), "id": job_id, "error": told}

    async def _take_stock(self) -> set[int]:
        """Return the places of those items that have receipts, and count what this run has paid for them."""
        receipts = await asyncio.gather(*(self._in(self._threads, self._reader(item)) for item in self.items))
        for receipt in receipts:
            if isinstance(receipt, Receipt) and receipt.run == self.run and receipt.state not in ("intent", "failed"):
                cost = (receipt.image or {}).get("cost") or receipt.paid_job().cost
                if cost is not None:
                    self._budget.add(receipt.model, cost)
        return {item.index for item, receipt in zip(self.items, receipts, strict=True) if receipt is not None}

    def _reader(self, item: Item) -> Callable[[], Receipt | FluxReceiptError | None]:
        def read() -> Receipt | FluxReceiptError | None:
            try:
                return self._book(item).read()
            except FluxReceiptError as error:
                # It will fail its item alone.
                return error

        return read

    @property
    def counts(self) -> dict[str, int]:
        """How many requests ended how."""
        states = [line["state"] for line in self.lines]
        reused = sum(bool(line.get("reused")) for line in self.lines)
        told = {"requested": len(states), "stored": states.count(STORED), "reused": reused}
        return {**told, **{name.replace(" ", "_"): states.count(name) for name in (MODERATED, FAILED, NOT_SUBMITTED)}}

    async def _one(self, item: Item, client: AsyncFluxClient, is_known: bool) -> None:
        tags = metrics.tags(item.model, self.hook.endpoint.gateway)
        try:
            image = await self._image(item, client, is_known)
        except OverBudgetError as error:
            self._stop(str(error))
            return
        except FluxError as error:
            metrics.failed(type(error).__name__, tags)
            self._fail(item, error)
            return
        except Exception as error:
            log.exception("Request %d failed in a way that is not foreseen.", item.index)
            what = f"{type(error).__name__}: {error}"
            self._fail(item, FluxServiceError(what, money="Its receipt tells what was paid."))
            return
        if image is None:
            return
        (metrics.reused(tags) if image.get("reused") else metrics.ready(image, tags))
        self._end(item, STORED, **{name: value for name, value in image.items() if name not in ("status", "model")})

    async def _image(self, item: Item, client: AsyncFluxClient, is_known: bool) -> dict[str, Any] | None:
        """Return what there is to tell of the image; None if the batch was stopped before it was bought."""
        found = await self._in(self._threads, lambda: self._purchase(item).find()) if is_known else None
        if found is not None and found.state == "stored":
            return {**(found.image or {}), "reused": True}
        async with self._slots.one():
            if found is not None and found.state in BOUGHT:
                result = await self._wait(item, client, found.paid_job())
            else:
                async with self._budget.one(item.model) as charge:
                    receipt = await self._buy(item)
                    if receipt is None or receipt.state == "stored":
                        charge.refund()
                        return None if receipt is None else {**(receipt.image or {}), "reused": True}
                    charge.tell(receipt.paid_job().cost)
                    result = await self._wait(item, client, receipt.paid_job())
                    charge.tell(result.cost)
            # A slot is given back only while few results wait to be stored: their links live ten minutes.
            await self._backlog.acquire()
        try:
            return await self._store_patiently(item, result)
        finally:
            self._backlog.release()

    async def _buy(self, item: Item) -> Receipt | None:
        give_up, attempt = time.monotonic() + self.rules.timeout, 0
        while not self.stopped:
            try:
                receipt = await self._in(self._threads, lambda: self._obtain(item))
                self._slots.accepted()
                return receipt
            except FluxRateLimitError as error:
                self._slots.refused()
                wait = max(error.retry_after or 0.0, min(30.0, 2.0**attempt) * random.uniform(0.5, 1.0))  # noqa: S311 - jitter
                attempt += 1
                if time.monotonic() + wait > give_up:
                    raise
                log.info("No room for another job; %d at once from now on. %s", int(self._slots.limit), error.what)
                await asyncio.sleep(wait)
        return None

    def _obtain(self, item: Item) -> Receipt:
        receipt = self._purchase(item).obtain(self.hook)
        # Noted in the thread: its answer counts even if nobody waits for it any more.
        self.in_flight[item.index] = receipt.paid_job().id
        return receipt

    def _purchase(self, item: Item) -> Purchase:
        rules, store = self.rules, self.folder.beside(item.file_name)
        images = InputImages(item.model, self.hook.get_conn(), rules.aws_conn_id)
        fields, problems = images.name(item.fields)
        request = prepare(item.model, fields, self.hook.endpoint.gateway, rules.strict, problems)
        policies = (rules.reuse, rules.on_orphan, rules.on_expired)
        return Purchase(item.model, request, images, self.run, self._book(item), store, *policies, queue=False)

    def _book(self, item: Item) -> BesideImage:
        return BesideImage(self.folder.beside(item.file_name))

    async def _wait(self, item: Item, client: AsyncFluxClient, job: Job) -> Result:
        self.in_flight[item.index] = job.id
        began = time.time() if job.submitted_at is None else job.submitted_at
        # An old job that a retry has found is looked at all the same.
        deadline = max(began + self.rules.timeout, time.time() + 5.0)
        try:
            return await client.wait(job, deadline, self.rules.poll_interval)
        except FluxError as error:
            await self._in(self._threads, functools.partial(_note, self._book(item), self.rules.on_expired, error))
            raise

    async def _store_patiently(self, item: Item, result: Result) -> dict[str, Any]:
        """Store the image, now or a little later: the retry of a long batch comes when its link is dead."""
        for pause in (*STORE_AGAIN, None):
            try:
                return await self._in(self._captures, lambda: self._store(item, result))
            except FluxError as error:
                if pause is None or not error.retryable or isinstance(error, FluxImageExpiredError):
                    raise
                log.info("Storing the image of job %s again in %g s: %s", result.job.id, pause, error.what)
                await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    def _store(self, item: Item, result: Result) -> dict[str, Any]:
        store = self.folder.beside(item.file_name)
        with outcome_noted(self._book(item), self.rules.on_expired, seed=result.seed):
            return deliver(self.hook.get_conn(), result, store, self.rules.max_bytes)

    def _fail(self, item: Item, error: FluxError) -> None:
        told = {"id": error.job_id, "error": f"{type(error).__name__}: {error.what}"}
        if isinstance(error, FluxModeratedError):
            self._end(item, MODERATED, **told)
            if self.rules.on_moderated == "skip":
                return
        else:
            self._end(item, FAILED, **told)
        log.warning("Request %d: %s", item.index, error.what)
        self.errors.append(error)
        if self.rules.stop_after is not None and len(self.errors) > self.rules.stop_after:
            self._stop(f"{len(self.errors)} requests have failed")

    def _stop(self, why: str) -> None:
        if not self.stopped:
            log.warning("Nothing more is submitted: %s. What is in flight is waited for and stored.", why)
            self.stopped = why

    def _end(self, item: Item, state: str, **told: Any) -> None:
        self.in_flight.pop(item.index, None)
        self.lines[item.index] = {**self._line(item, state), **told}
        self._progress.end(state, self._slots.active, self.cost)

    def _line(self, item: Item, state: str) -> dict[str, Any]:
        nothing = dict.fromkeys(("uri", "id", "seed", "cost", "error"))
        return {"index": item.index, "state": state, "model": item.model, "file_name": item.file_name, **nothing}

    async def _in(self, threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, function)


def _note(book: Book, on_expired: str, error: FluxError) -> None:
    """Write into the receipt how the job ended."""
    try:
        with outcome_noted(book, on_expired):
            raise error
    except FluxError:
        pass
