"""FluxResultTrigger: waits for a job in the triggerer, stores its image, and reports the end in one event."""

from __future__ import annotations

import asyncio
import importlib
import socket
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_flux.client.jobs import Job, job_from
from airflow_provider_flux.exceptions import FluxError, FluxServiceError
from airflow_provider_flux.failures import abandoned_job_message
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.results import FAILED, HANDED_BACK, READY, STORED, ImageResult, WaitEvent

if TYPE_CHECKING:
    from airflow_provider_flux.client.gateways import Endpoint
    from airflow_provider_flux.client.responses import Result

CAPTURES = 4
"""Images that one triggerer downloads and stores at once: each takes a thread, and memory to decode it."""

_store_slots: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_storing: set[asyncio.Future[ImageResult]] = set()  # a loop holds its tasks only weakly


class FluxResultTrigger(BaseTrigger):
    """Poll a job until it is ready, has failed, or its deadline has passed; store its image; then fire once.

    The image is stored here, because its URL expires after ten minutes and a worker's queue may take longer. Where
    that is not possible, the event says so and the worker stores it.

    Airflow stores the arguments and logs the event in clear text, so they contain no key, prompt or signed URL.
    Nothing is submitted here: after a restart, the trigger polls again.

    :param flux_conn_id: Airflow connection of the FLUX API.
    :param job: The job, as :meth:`Job.to_dict` returns it.
    :param deadline: Unix time in seconds at which waiting ends; kept across restarts of the triggerer.
    :param poll_interval: Seconds between polls; None: estimated from how long such jobs take.
    :param store: Where to store the image, as arguments of :func:`open_store`; None: nowhere.
    :param max_bytes: Largest accepted image, in bytes.
    :param not_before: Unix time in seconds until which the event is delayed: Airflow fails a task that is resumed
        before it has noticed the end of the deferring process.
    :param has_receipt: Whether another attempt of the task can find the job.
    """

    def __init__(
        self,
        flux_conn_id: str = "flux_default",
        job: dict[str, Any] | None = None,
        deadline: float = 0.0,
        poll_interval: float | None = None,
        store: dict[str, Any] | None = None,
        max_bytes: int = MAX_BYTES,
        not_before: float = 0.0,
        has_receipt: bool = True,
        **unknown: Any,
    ) -> None:
        # Never raises, and accepts what other versions stored: an error here stops the whole triggerer.
        super().__init__()
        self.flux_conn_id = flux_conn_id
        self.job = job
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.store = store
        self.max_bytes = max_bytes
        self.not_before = not_before
        # Earlier versions have another name for it, and passed the state of the task on in the event.
        self.has_receipt = bool(unknown.get("remembered", has_receipt))
        self._earlier_state = {name: unknown[name] for name in ("paid_by", "unused_cost") if name in unknown}

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, for Airflow's database."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "flux_conn_id": self.flux_conn_id,
                "job": self.job,
                "deadline": self.deadline,
                "poll_interval": self.poll_interval,
                "store": self.store,
                "max_bytes": self.max_bytes,
                "not_before": self.not_before,
                "has_receipt": self.has_receipt,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, store, then yield the one event."""
        began = time.monotonic()
        event = await self._wait_and_store()
        event = replace(event, waited=round(time.monotonic() - began, 1), triggerer=socket.gethostname())
        await asyncio.sleep(max(0.0, self.not_before - time.time()))
        yield TriggerEvent({**event.to_dict(), **self._earlier_state})

    async def on_kill(self) -> None:
        """Log what happens to the job; Airflow 3.3 calls this when a user ends the deferred task."""
        self.log.warning(abandoned_job_message(self._job.id, self.has_receipt))

    @property
    def _job(self) -> Job:
        try:
            return job_from(self.job)
        except ValueError:
            return Job("unknown")

    async def _wait_and_store(self) -> WaitEvent:
        uri = self.store.get("uri") if isinstance(self.store, Mapping) else None
        event = WaitEvent(outcome=HANDED_BACK, job=self._job, deadline=self.deadline, uri=uri)
        try:
            endpoint = await self._endpoint()
        except Exception as error:
            self._log_unusable_connection(error)
            return event
        try:
            result = await self._wait(endpoint)
        except FluxError as error:
            # Without a job id, the client cannot be created here: a proxy, or a CA file that the worker may have.
            if error.job_id is None:
                self.log.warning("The triggerer cannot use the FLUX API; the worker waits instead: %s", error)
                return event
            return replace(event, outcome=FAILED, error=error)
        except Exception:
            self.log.exception("Waiting in the triggerer failed; the worker waits instead.")
            return event
        event = replace(event, outcome=READY, polls=result.polls)
        if self.store is None:
            return event
        try:
            return replace(event, outcome=STORED, image=await self._download_and_store(endpoint, result))
        except Exception as error:
            self.log.warning("The triggerer could not store the image; the worker stores it: %s", error)
            known = error if isinstance(error, FluxError) else FluxServiceError(type(error).__name__)
            return replace(event, error=known)

    def _log_unusable_connection(self, error: Exception) -> None:
        if self.task_instance is None:
            # `airflow dags test` runs triggers where connections cannot be looked up, and then the task continues.
            self.log.info("This trigger cannot look up connection %r; the task waits instead.", self.flux_conn_id)
        else:
            self.log.warning(
                "The triggerer cannot use connection %r; the worker waits instead: %s", self.flux_conn_id, error
            )

    async def _endpoint(self) -> Endpoint:
        flux = await asyncio.to_thread(importlib.import_module, "airflow_provider_flux.hooks.flux")
        endpoint: Endpoint = await flux.FluxHook.get_endpoint_async(self.flux_conn_id)
        return endpoint

    async def _wait(self, endpoint: Endpoint) -> Result:
        # Loading the HTTP libraries takes long enough to block every other trigger on this loop.
        http = await asyncio.to_thread(importlib.import_module, "airflow_provider_flux.client.client")
        job = job_from(self.job)
        async with http.shared_client(endpoint) as client:
            return await client.wait(job, self.deadline, self.poll_interval)

    async def _download_and_store(self, endpoint: Endpoint, result: Result) -> ImageResult:
        def transfer() -> ImageResult:
            from airflow_provider_flux.client.client import FluxClient
            from airflow_provider_flux.images.transfer import download_and_store
            from airflow_provider_flux.storage import open_store

            with FluxClient(endpoint) as client:
                store = open_store(**(self.store or {}), keep_client=True)
                return download_and_store(client, result, store, self.max_bytes)

        async with _store_slots.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(CAPTURES)):
            # Not asyncio.to_thread: stores look up connections, and from a plain thread such a request mixes with the
            # triggerer's own messages (Airflow 3.1 then ends the whole triggerer). asgiref's threads lead back to its
            # loop.
            storing = asyncio.ensure_future(sync_to_async(transfer, thread_sensitive=False)())
            _storing.add(storing)
            storing.add_done_callback(_storing.discard)
            # A cancelled trigger lets it finish: a thread cannot be cancelled, and a lookup that is interrupted
            # between request and response ends the triggerer of Airflow 3.1, too.
            return await asyncio.shield(storing)
