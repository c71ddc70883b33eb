"""FluxResultTrigger: waits for a job in the triggerer, stores its image, and tells the end in one event."""

from __future__ import annotations

import asyncio
import importlib
import socket
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from airflow.triggers.base import BaseTrigger, TriggerEvent
from asgiref.sync import sync_to_async

from airflow_provider_flux.client.jobs import job_from
from airflow_provider_flux.exceptions import FluxError
from airflow_provider_flux.failures import abandoned_job_message
from airflow_provider_flux.images.verification import MAX_BYTES

if TYPE_CHECKING:
    from airflow_provider_flux.client.gateways import Endpoint
    from airflow_provider_flux.client.responses import Result

EVENT_VERSION = 1

STORED = "stored"
"""The image is stored; the event describes it."""
READY = "ready"
"""The job is ready; the worker should store its image."""
FAILED = "failed"
"""The job has no image; the event says why."""
HANDED_BACK = "gave up"
"""The triggerer could not wait (no connection there, say); the worker should."""

CAPTURES = 4
"""Images that one triggerer captures at once: each takes a thread, and memory to decode it."""

_NOT_OF_THE_IMAGE = {"version", "outcome", "deadline", "polls", "waited", "triggerer", "paid_by", "unused_cost"}

_places: WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = WeakKeyDictionary()
_storing: set[asyncio.Future[dict[str, Any]]] = set()  # a loop holds its tasks only weakly


class FluxResultTrigger(BaseTrigger):
    """Poll a job until it is ready, has failed, or its deadline has passed; store its image; then fire once.

    The image is stored here, because its link lives ten minutes and a worker's queue may be longer. Where that is
    not possible, the event says so and the worker does it.

    Its arguments are stored and its event is logged in clear text, so they hold no key, prompt or signed URL.
    Nothing is submitted here: a restart asks again.

    :param flux_conn_id: Airflow connection of the FLUX API.
    :param job: The job, as :meth:`Job.to_dict` gives it.
    :param deadline: Unix time in seconds at which waiting ends; kept across restarts of the triggerer.
    :param poll_interval: Seconds between polls; None: from when such jobs usually finish.
    :param store: Where the image is to be stored, as :func:`open_store` takes it; None: not here.
    :param max_bytes: Largest image that is taken, in bytes.
    :param not_before: Unix time in seconds before which the event is held back: Airflow fails a task that is
        resumed before it has noticed that the deferring process ended.
    :param has_receipt: Whether another attempt of the task will find the job.
    :param paid_by: The task that has paid for the job, if it is another one; for the event.
    :param unused_cost: Credits of further jobs that the task pays for and does not use; for the event.
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
        paid_by: dict[str, Any] | None = None,
        unused_cost: float = 0.0,
        **unknown: Any,
    ) -> None:
        # Never raises, and takes what other versions stored: an error here stops the whole triggerer.
        super().__init__()
        self.flux_conn_id = flux_conn_id
        self.job = job
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.store = store
        self.max_bytes = max_bytes
        self.not_before = not_before
        self.has_receipt = has_receipt
        self.paid_by = paid_by
        self.unused_cost = unused_cost

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
                "paid_by": self.paid_by,
                "unused_cost": self.unused_cost,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, store, then yield the one event."""
        began = time.monotonic()
        outcome = await self._outcome()
        outcome.update(waited=round(time.monotonic() - began, 1), triggerer=socket.gethostname())
        await asyncio.sleep(max(0.0, self.not_before - time.time()))
        yield TriggerEvent(outcome)

    async def on_kill(self) -> None:
        """Say what becomes of the job; Airflow 3.3 calls this when a user ends the deferred task."""
        job = self.job if isinstance(self.job, dict) else {}
        self.log.warning(abandoned_job_message(str(job.get("id")), self.has_receipt))

    async def _outcome(self) -> dict[str, Any]:
        job = self.job if isinstance(self.job, dict) else {}
        uri = self.store.get("uri") if isinstance(self.store, dict) else None
        told = {"version": EVENT_VERSION, **job, "deadline": self.deadline, "uri": uri}
        told |= {"paid_by": self.paid_by, "unused_cost": self.unused_cost}
        try:
            endpoint = await self._endpoint()
        except Exception as error:
            self._log_unusable(error)
            return {**told, "outcome": HANDED_BACK}
        try:
            result = await self._wait(endpoint)
        except FluxError as error:
            if error.job_id is None:  # no client could be made here: a proxy or a CA file, perhaps not the worker's
                self.log.warning("The triggerer cannot use the FLUX API, the worker will: %s", error)
                return {**told, "outcome": HANDED_BACK}
            return {**told, "outcome": FAILED, **error.to_dict()}
        except Exception:
            self.log.exception("Waiting in the triggerer failed; the worker will wait instead.")
            return {**told, "outcome": HANDED_BACK}
        told["polls"] = result.polls
        if self.store is None:
            return {**told, "outcome": READY}
        try:
            return {**told, "outcome": STORED, **await self._hand_over(endpoint, result)}
        except Exception as error:
            self.log.warning("The triggerer could not store the image, the worker will: %s", error)
            what = error.message if isinstance(error, FluxError) else type(error).__name__
            return {**told, "outcome": READY, "what": what}

    def _log_unusable(self, error: Exception) -> None:
        if self.task_instance is None:
            # `airflow dags test` runs triggers in a place that has no connections, and then the task goes on.
            self.log.info("This trigger cannot look up connection %r here; the task waits itself.", self.flux_conn_id)
        else:
            self.log.warning(
                "The triggerer cannot use connection %r; the worker waits instead: %s", self.flux_conn_id, error
            )

    async def _endpoint(self) -> Endpoint:
        flux = await asyncio.to_thread(importlib.import_module, "airflow_provider_flux.hooks.flux")
        endpoint: Endpoint = await flux.FluxHook.get_endpoint_async(self.flux_conn_id)
        return endpoint

    async def _wait(self, endpoint: Endpoint) -> Result:
        # Loading the HTTP libraries takes long enough to hold up every other trigger on this loop.
        http = await asyncio.to_thread(importlib.import_module, "airflow_provider_flux.client.client")
        job = job_from(self.job)
        async with http.shared_client(endpoint) as client:
            return await client.wait(job, self.deadline, self.poll_interval)

    async def _hand_over(self, endpoint: Endpoint, result: Result) -> dict[str, Any]:
        def take() -> dict[str, Any]:
            from airflow_provider_flux.client.client import FluxClient
            from airflow_provider_flux.images.transfer import download_and_store
            from airflow_provider_flux.storage import open_store

            with FluxClient(endpoint) as client:
                store = open_store(**(self.store or {}), keep_client=True)
                return download_and_store(client, result, store, self.max_bytes)

        async with _places.setdefault(asyncio.get_running_loop(), asyncio.Semaphore(CAPTURES)):
            # Not asyncio.to_thread: stores look up connections, and in a plain thread that breaks in between the
            # triggerer's own messages (Airflow 3.1 then ends the whole triggerer). This way leads back to its loop.
            storing = asyncio.ensure_future(sync_to_async(take, thread_sensitive=False)())
            _storing.add(storing)
            storing.add_done_callback(_storing.discard)
            # A trigger that is cancelled lets it end: a thread cannot be cancelled, and a look-up that is cut off
            # between question and answer ends the triggerer of Airflow 3.1 too.
            return await asyncio.shield(storing)


def wait_summary(event: dict[str, Any]) -> str | None:
    """Return the sentence that says what the triggerer did; None if the event, of another version, does not say.

    The worker logs it. The event has the facts only, since Airflow logs every event in the triggerer as it is, and
    a task's log shows both.
    """
    host, waited, polls = (event.get(name) for name in ("triggerer", "waited", "polls"))
    if not isinstance(host, str) or not isinstance(waited, (int, float)) or not 0 <= waited < 1e9:
        return None
    ends = {STORED: "it stored the image", READY: "the worker stores the image", FAILED: "there is no image"}
    end = ends.get(str(event.get("outcome")), "the worker waits for it")
    polled = f" (polls: {polls})" if isinstance(polls, int) and 0 <= polls < 1e9 else ""
    return f"The triggerer at {host[:100]} waited {waited:.0f} s for job {str(event.get('id'))[:100]}{polled}: {end}."


def told_image(event: dict[str, Any]) -> dict[str, Any]:
    """Return from an event what the task returns of the image, the same as if the worker had stored it."""
    told = {name: value for name, value in event.items() if name not in _NOT_OF_THE_IMAGE}
    if told.get("polling_url") is None:
        told.pop("polling_url", None)
    return told
