"""FluxResultTrigger: waits for a job in the triggerer, and tells its end in one event."""

from __future__ import annotations

import asyncio
import importlib
import time
from collections.abc import AsyncIterator
from typing import Any

from airflow.triggers.base import BaseTrigger, TriggerEvent

from airflow_provider_flux.client.errors import FluxError
from airflow_provider_flux.client.jobs import job_from

EVENT_VERSION = 1

READY = "ready"
FAILED = "failed"
GAVE_UP = "gave up"
"""The triggerer could not wait (no connection there, say); the worker should."""


class FluxResultTrigger(BaseTrigger):
    """Poll a job until it is ready, has failed, or its deadline has passed; then fire once.

    Its arguments are stored and its event is logged in clear text, so they hold no key, prompt or signed URL.
    Nothing is submitted here, and what is asked is only read: a restart asks again.

    :param flux_conn_id: Airflow connection of the FLUX API.
    :param job: The job, as :meth:`Job.to_dict` gives it.
    :param deadline: Unix time in seconds at which waiting ends; kept across restarts of the triggerer.
    :param poll_interval: Seconds between polls; None: close at first, then wider.
    :param uri: Where the image is to be stored; None: nowhere.
    :param not_before: Unix time in seconds before which the event is held back: Airflow fails a task that is
        resumed before it has noticed that the deferring process ended.
    """

    def __init__(
        self,
        flux_conn_id: str = "flux_default",
        job: dict[str, Any] | None = None,
        deadline: float = 0.0,
        poll_interval: float | None = None,
        uri: str | None = None,
        not_before: float = 0.0,
        **unknown: Any,
    ) -> None:
        # Never raises, and takes what other versions stored: an error here stops the whole triggerer.
        super().__init__()
        self.flux_conn_id = flux_conn_id
        self.job = job
        self.deadline = deadline
        self.poll_interval = poll_interval
        self.uri = uri
        self.not_before = not_before

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments, for Airflow's database."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "flux_conn_id": self.flux_conn_id,
                "job": self.job,
                "deadline": self.deadline,
                "poll_interval": self.poll_interval,
                "uri": self.uri,
                "not_before": self.not_before,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Wait, then yield the one event."""
        outcome = await self._outcome()
        await asyncio.sleep(max(0.0, self.not_before - time.time()))
        yield TriggerEvent(outcome)

    async def _outcome(self) -> dict[str, Any]:
        job = self.job if isinstance(self.job, dict) else {}
        told = {"version": EVENT_VERSION, **job, "deadline": self.deadline, "uri": self.uri}
        try:
            await self._wait()
        except FluxError as error:
            return {**told, "outcome": FAILED, **error.to_dict()}
        except Exception as error:
            self.log.exception("Waiting in the triggerer failed; the worker will wait instead.")
            return {**told, "outcome": GAVE_UP, "what": f"{type(error).__name__}: {error}"}
        return {**told, "outcome": READY}

    async def _wait(self) -> None:
        # Loading the HTTP libraries takes long enough to hold up every other trigger on this loop.
        flux = await asyncio.to_thread(importlib.import_module, "airflow_provider_flux.hooks.flux")
        http = await asyncio.to_thread(importlib.import_module, "airflow_provider_flux.client.client")
        job = job_from(self.job)
        endpoint = await flux.FluxHook.get_endpoint_async(self.flux_conn_id)
        async with http.shared_client(endpoint) as client:
            await client.wait(job, self.deadline, self.poll_interval)
