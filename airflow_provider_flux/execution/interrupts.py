"""Run an event loop so that what ends a task, such as its execution_timeout, ends the loop too."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeVar

T = TypeVar("T")


def run_interruptible(coroutine: Coroutine[Any, Any, T]) -> T:
    """Return the coroutine's result; if this thread is interrupted, cancel it and wait until it has cleaned up.

    Airflow ends a task by raising from a signal's handler, in the main thread, wherever that is just then. An event
    loop that is hit inside a callback logs such an exception and goes on, so the loop runs in another thread.

    :raises BaseException: what interrupted this thread, or what the coroutine raised.
    """
    with asyncio.Runner() as runner, ThreadPoolExecutor(1, "flux-loop") as thread:
        loop = runner.get_loop()
        task = loop.create_task(coroutine)
        running = thread.submit(loop.run_until_complete, task)
        try:
            return running.result()
        except BaseException:
            if not running.done():
                loop.call_soon_threadsafe(task.cancel)
                wait([running])
            raise
