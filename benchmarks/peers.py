"""How others wait for a job in a triggerer: three triggers, each asking every ``interval`` seconds."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowException
from airflow.providers.http.hooks.http import HttpAsyncHook
from airflow.providers.http.triggers.http import HttpSensorTrigger
from airflow.triggers.base import BaseTrigger, TriggerEvent


class _Peer(BaseTrigger):
    def __init__(self, path: str, interval: float) -> None:
        super().__init__()
        self.path, self.interval = path, interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        return f"{type(self).__module__}.{type(self).__name__}", {"path": self.path, "interval": self.interval}


class OwnClientTrigger(_Peer):
    """The usual way: an ``httpx.AsyncClient`` for each trigger."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        connection = await get_async_connection("flux_default")
        headers = {"Authorization": f"Bearer {connection.password}"}
        async with httpx.AsyncClient(base_url=str(connection.host), headers=headers) as client:
            while (await client.get(self.path)).json()["status"] != "Ready":
                await asyncio.sleep(self.interval)
        yield TriggerEvent({"status": "Ready"})


class BlockingTrigger(_Peer):
    """As ``OpenAIBatchTrigger`` of the openai provider does: a blocking client, called in the event loop."""

    async def run(self) -> AsyncIterator[TriggerEvent]:
        connection = await get_async_connection("flux_default")
        headers = {"Authorization": f"Bearer {connection.password}"}
        with httpx.Client(base_url=str(connection.host), headers=headers) as client:
            while client.get(self.path).json()["status"] != "Ready":
                await asyncio.sleep(self.interval)
        yield TriggerEvent({"status": "Ready"})


class SensorTrigger(HttpSensorTrigger):
    """``HttpSensorTrigger`` of the http provider, with a hook that takes "Pending" for the 404 it waits on."""

    def __init__(self, path: str, interval: float) -> None:
        super().__init__(endpoint=path, http_conn_id="http_flux", poke_interval=interval)

    def _get_async_hook(self) -> HttpAsyncHook:
        return _JobHook(method=self.method, http_conn_id=self.http_conn_id)


class _JobHook(HttpAsyncHook):
    async def run(self, *args: Any, **kwargs: Any) -> Any:
        response = await super().run(*args, **kwargs)
        if (await response.json())["status"] != "Ready":
            raise AirflowException("404: not ready")
        return response
