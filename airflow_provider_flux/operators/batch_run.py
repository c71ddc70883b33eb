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
    FluxJobFailedError,
    FluxModeratedError,
    FluxRateLimitError,
    FluxServiceError,
)
from airflow_provider_flux.client.slots import Slots
from airflow_provider_flux.client.validation import prepare
from airflow_provider_flux.images.inputs import InputImages
from airflow_provider_flux.operators.budget import Budget, OverBudgetError
from airflow_provider_flux.operators.progress import Progress
from airflow_provider_flux.operators.purchase import Purchase, outcome_noted

if TYPE_CHECKING:
    from airflow_provider_flux.client.answers import Result
    from airflow_provider_flux.client.client import AsyncFluxClient
    from airflow_provider_flux.client.jobs import Job
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.images.receipts import Receipt, Run
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
    in_flight: dict[str, None] = field(default_factory=dict)
    _costs: dict[int, float] = field(default_factory=dict)

    @property
    def cost(self) -> float:
        """Credits that this run, with all its tries, pays."""
        return sum(self._costs.values())

    async def finish(self) -> None:
        """Bring every item to its end; afterwards ``lines`` tells of each, in the order given."""
        from airflow_provider_flux.client.client import shared_client

        self._slots, self._budget = Slots(self.rules.max_active), Budget(self.rules.max_cost)
        self._backlog = asyncio.Semaphore(2 * self.rules.max_active)
        self._progress, self._stopped = Progress(len(self.items)), False
        self._threads = ThreadPoolExecutor(self.rules.max_active, "flux-submit")
        self._captures = ThreadPoolExecutor(CAPTURES, "flux-capture")
        self.lines = [self._line(item, NOT_SUBMITTED) for item in self.items]
        try:
            async with shared_client(self.hook.endpoint) as client, asyncio.TaskGroup() as group:
                for item in self.items:
                    group.create_task(self._one(item, client))
        finally:
            # What a thread has begun goes on to its end: a submit's answer must find its receipt.
            self._threads.shutdown(cancel_futures=True)
            self._captures.shutdown(cancel_futures=True)

    @property
    def counts(self) -> dict[str, int]:
        """How many requests ended how."""
        states = [line["state"] for line in self.lines]
        reused = sum(bool(line.get("reused")) for line in self.lines)
        told = {"requested": len(states), "stored": states.count(STORED), "reused": reused}
        return {**told, **{name.replace(" ", "_"): states.count(name) for name in (MODERATED, FAILED, NOT_SUBMITTED)}}

    async def _one(self, item: Item, client: AsyncFluxClient) -> None:
        tags = metrics.tags(item.model, self.hook.endpoint.gateway)
        try:
            image = await self._buy_and_store(item, client)
        except OverBudgetError:
            self._stop("max_cost is reached")
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

    async def _buy_and_store(self, item: Item, client: AsyncFluxClient) -> dict[str, Any] | None:
        """Return what there is to tell of the image; None if the batch was stopped before it was bought."""
        store = self.folder.beside(item.file_name)
        async with self._slots.one():
            async with self._budget.one(item.model) as settle:
                bought = await self._buy(item, store)
                if bought is None:
                    return None
                purchase, receipt = bought
                image, job = receipt.image or {}, receipt.paid_job()
                if receipt.state == "stored":
                    settle(self._own(item, receipt, image.get("cost")))
                    return {**image, "reused": True}
                if job.cost is not None:
                    settle(self._own(item, receipt, job.cost))
                result = await self._wait(client, job, purchase)
                if job.cost is None:
                    settle(self._own(item, receipt, result.cost))
            # A slot is given back only while few results wait to be stored: their links live ten minutes.
            await self._backlog.acquire()
        try:
            return await self._store_patiently(result, store, purchase)
        finally:
            self._backlog.release()

    async def _store_patiently(self, result: Result, store: Store, purchase: Purchase) -> dict[str, Any]:
        """Store the image, now or a little later: the retry of a long batch comes when its link is dead."""
        for pause in (*STORE_AGAIN, None):
            try:
                return await self._in(self._captures, lambda: self._store(result, store, purchase))
            except FluxError as error:
                if pause is None or not error.retryable or isinstance(error, FluxImageExpiredError):
                    raise
                log.info("Storing the image of job %s again in %g s: %s", result.job.id, pause, error.what)
                await asyncio.sleep(pause)
        raise AssertionError("the last attempt returns or raises")

    async def _buy(self, item: Item, store: Store) -> tuple[Purchase, Receipt] | None:
        give_up, attempt = time.monotonic() + self.rules.timeout, 0
        while not self._stopped:
            try:
                purchase, receipt = await self._in(self._threads, lambda: self._obtain(item, store))
                self._slots.accepted()
                return purchase, receipt
            except FluxRateLimitError as error:
                self._slots.refused()
                wait = max(error.retry_after or 0.0, min(30.0, 2.0**attempt) * random.uniform(0.5, 1.0))  # noqa: S311
                attempt += 1
                if time.monotonic() + wait > give_up:
                    raise
                log.info("No room for another job; %d at once from now on. %s", int(self._slots.limit), error.what)
                await asyncio.sleep(wait)
        return None

    def _obtain(self, item: Item, store: Store) -> tuple[Purchase, Receipt]:
        from airflow_provider_flux.images.receipts import BesideImage

        rules = self.rules
        images = InputImages(item.model, self.hook.get_conn(), rules.aws_conn_id)
        fields, problems = images.name(item.fields)
        request = prepare(item.model, fields, self.hook.endpoint.gateway, rules.strict, problems)
        policies = (rules.reuse, rules.on_orphan, rules.on_expired)
        purchase = Purchase(item.model, request, images, self.run, BesideImage(store), store, *policies, queue=False)
        return purchase, purchase.obtain(self.hook)

    async def _wait(self, client: AsyncFluxClient, job: Job, purchase: Purchase) -> Result:
        self.in_flight[job.id] = None
        began = time.time() if job.submitted_at is None else job.submitted_at
        # An old job that a retry has found is looked at all the same.
        deadline = max(began + self.rules.timeout, time.time() + 5.0)
        try:
            return await client.wait(job, deadline, self.rules.poll_interval)
        except FluxError as error:
            await self._in(self._threads, functools.partial(_note, purchase, self.rules.on_expired, error))
            raise
        finally:
            self.in_flight.pop(job.id, None)

    def _store(self, result: Result, store: Store, purchase: Purchase) -> dict[str, Any]:
        from airflow_provider_flux.images.delivery import deliver

        with outcome_noted(purchase.book, self.rules.on_expired, seed=result.seed):
            return deliver(self.hook.get_conn(), result, store, self.rules.max_bytes)

    def _own(self, item: Item, receipt: Receipt, cost: float | None) -> float | None:
        """Return and note what an image costs this run; one that another run has paid for costs it nothing."""
        own = cost if receipt.run == self.run else None
        self._costs[item.index] = own or 0.0
        return own

    def _fail(self, item: Item, error: FluxError) -> None:
        if isinstance(error, (FluxModeratedError, FluxJobFailedError)):
            self._costs.pop(item.index, None)
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
        if not self._stopped:
            log.warning("Nothing more is submitted: %s. What is in flight is waited for and stored.", why)
        self._stopped = True

    def _end(self, item: Item, state: str, **told: Any) -> None:
        self.lines[item.index] = {**self._line(item, state), **told}
        self._progress.end(state, self._slots.active, self.cost)

    def _line(self, item: Item, state: str) -> dict[str, Any]:
        nothing = dict.fromkeys(("uri", "id", "seed", "cost", "error"))
        return {"index": item.index, "state": state, "model": item.model, "file_name": item.file_name, **nothing}

    async def _in(self, threads: ThreadPoolExecutor, function: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(threads, function)


def _note(purchase: Purchase, on_expired: str, error: FluxError) -> None:
    """Write into the receipt how the job ended."""
    try:
        with outcome_noted(purchase.book, on_expired):
            raise error
    except FluxError:
        pass
