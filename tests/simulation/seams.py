"""Where the package touches the real world, the simulated one is put in: clocks, dice, threads, sockets, stores.

Nothing of the package is replaced but the names under which it knows these parts.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import datetime
import importlib
import json
import logging
import os
import pkgutil
import random
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import asgiref.sync
import httpx
import structlog
from airflow.providers.common.compat.connection import get_async_connection
from airflow.sdk import BaseHook, Connection
from httpx_aiohttp import AiohttpTransport

import airflow_provider_flux
from airflow_provider_flux.client import estimator
from airflow_provider_flux.storage.s3 import S3Store
from tests.simulation.api import DELIVERY, KEY, Api
from tests.simulation.budgets import Budget
from tests.simulation.dangers import Dangers
from tests.simulation.loop import SimExecutor, SimLoop, wait
from tests.simulation.network import Network
from tests.simulation.store import SimStore, Storage
from tests.simulation.world import World

_APART = ("emulator", "gallery", "plugins", "decorators")


class Stage:
    """The world that the package is in now."""

    world: World
    dangers: Dangers
    network: Network
    api: Api
    budget: Budget
    on_log: Callable[[str], None]

    def set(
        self,
        world: World,
        dangers: Dangers,
        api: Api,
        storage: Storage,
        on_log: Callable[[str], None],
        budget: Budget,
    ) -> None:
        """Put the package into another world."""
        self.budget = budget
        self.world, self.dangers, self.api, self.on_log = world, dangers, api, on_log
        self.network = Network(world, dangers, api)
        SimStore.storage = storage
        estimator._estimators.clear()


STAGE = Stage()


class _Lock:
    """A lock of the world's threads."""

    def __init__(self) -> None:
        self._is_held = False

    def __enter__(self) -> None:
        while self._is_held:
            STAGE.world.sleep(0.01)
        self._is_held = True

    def __exit__(self, *_: object) -> None:
        self._is_held = False


class _DateTime(datetime.datetime):
    @classmethod
    def now(cls, tz: datetime.tzinfo | None = None) -> Any:
        return datetime.datetime.fromtimestamp(STAGE.world.now, tz)


def _datetime_module() -> ModuleType:
    module = ModuleType("datetime")
    vars(module).update(vars(datetime), datetime=_DateTime)
    return module


async def _send_async(_: Any, request: httpx.Request) -> httpx.Response:
    return await STAGE.network.send_async(request)


def _executor(max_workers: int | None = None, thread_name_prefix: str = "thread", **_: Any) -> SimExecutor:
    return SimExecutor(STAGE.world, max_workers or 32, thread_name_prefix)


def _sync_to_async(function: Callable[..., Any], **_: Any) -> Callable[..., Any]:
    async def call(*arguments: Any, **named: Any) -> Any:
        return await asyncio.to_thread(function, *arguments, **named)

    return call


def _connection(conn_id: str) -> Connection:
    extra = json.dumps({"gateway": STAGE.api.gateway, **STAGE.budget.extra})
    return Connection(conn_id=conn_id, conn_type="flux", host=STAGE.api.base, password=KEY, extra=extra)


async def _connection_async(conn_id: str) -> Connection:
    return _connection(conn_id)


def _look_up(host: str, port: Any, *_: Any, **__: Any) -> list[tuple[Any, ...]]:
    """Every name is that of one public address."""
    return [(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", (DELIVERY, port))]


class _Log(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        STAGE.on_log(self.format(record))


def _structured(logger: Any, method: str, event: Any) -> Any:
    error = sys.exc_info()[1] if event.get("exc_info") else None
    STAGE.on_log(f"{event['event']}{logging.Formatter().formatException(sys.exc_info()) if error else ''}")
    raise structlog.DropEvent


def _modules() -> list[ModuleType]:
    """Import the whole package, so that no name is taken from the real world later."""
    prefix = f"{airflow_provider_flux.__name__}."
    for found in pkgutil.walk_packages(airflow_provider_flux.__path__, prefix):
        if found.name.removeprefix(prefix).partition(".")[0] not in _APART and not found.name.endswith("__main__"):
            importlib.import_module(found.name)
    return [module for name, module in sorted(sys.modules.items()) if name.startswith(prefix)]


def _stand_ins() -> list[tuple[Any, Any]]:
    clock = SimpleNamespace(
        time=lambda: STAGE.world.now,
        monotonic=lambda: STAGE.world.now,
        perf_counter=lambda: STAGE.world.now,
        sleep=lambda seconds: STAGE.world.sleep(seconds),
    )
    dice = SimpleNamespace(
        uniform=lambda low, high: STAGE.world.rng.uniform(low, high), random=lambda: STAGE.world.rng.random()
    )
    return [
        (time, clock),
        (random, dice),
        (threading, SimpleNamespace(Lock=_Lock)),
        (uuid, SimpleNamespace(uuid4=lambda: uuid.UUID(int=STAGE.world.rng.getrandbits(128)))),
        (datetime, _datetime_module()),
        (datetime.datetime, _DateTime),
        (concurrent.futures.ThreadPoolExecutor, _executor),
        (concurrent.futures.wait, wait),
        (asgiref.sync.sync_to_async, _sync_to_async),
        (S3Store, SimStore),
        (get_async_connection, _connection_async),
    ]


@contextlib.contextmanager
def simulated() -> Iterator[None]:
    """Put the package into whatever world the stage has, and take it out again."""
    with contextlib.ExitStack() as undo:
        replaced = {id(real): stand_in for real, stand_in in _stand_ins()}
        for module in _modules():
            for name, value in list(vars(module).items()):
                if id(value) in replaced:
                    undo.enter_context(mock.patch.object(module, name, replaced[id(value)]))
        for where, name, stand_in in (
            (httpx.HTTPTransport, "handle_request", lambda _, request: STAGE.network.send(request)),
            (AiohttpTransport, "handle_async_request", _send_async),
            (socket, "getaddrinfo", _look_up),
            (asyncio.events, "new_event_loop", lambda: SimLoop(STAGE.world)),
            (BaseHook, "get_connection", classmethod(lambda _, conn_id: _connection(conn_id))),
        ):
            undo.enter_context(mock.patch.object(where, name, stand_in))
        # Airflow's own default, whatever other tests have it.
        undo.enter_context(mock.patch.dict(os.environ, AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL="5"))
        undo.enter_context(_listening())
        yield


@contextlib.contextmanager
def _listening() -> Iterator[None]:
    """Hear every log record of the package, before anything masks it."""
    handler, before = _Log(), structlog.get_config()
    loggers = [logging.getLogger(name) for name in ("airflow_provider_flux", "airflow.task")]
    old = [(logger, logger.level, logger.propagate) for logger in loggers]
    structlog.configure(
        processors=[_structured],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        cache_logger_on_first_use=False,
    )
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    try:
        yield
    finally:
        for logger, level, propagate in old:
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        structlog.configure(**before)
