"""asyncio and concurrent.futures on a world's clock, with a world's threads."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import contextvars
import functools
import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from tests.simulation.world import Killed, Thread, Waker, World

T = TypeVar("T")


# asyncio means its loops to be subclassed, but its types do not tell what there is to call.
_Loop: Any = asyncio.BaseEventLoop


class _Task(asyncio.Task[Any]):
    """A task whose place in a set does not depend on where in memory it lies."""

    def __init__(self, number: int, coroutine: Any, loop: Any, **more: Any) -> None:
        self._number = number
        super().__init__(coroutine, loop=loop, **more)

    def __hash__(self) -> int:
        # asyncio asks for it before __init__ has returned.
        return self._number

    def __eq__(self, other: object) -> bool:
        return self is other


class SimLoop(_Loop):
    """An event loop whose time is the world's, and whose threads are."""

    _stopping: bool
    _thread_id: int | None

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world
        self._selector = self
        # Unix times are no finer than this; a timer that is due at this very moment would else be asked for for ever.
        self._clock_resolution = 1e-6
        self._sleeper: Thread | None = None
        self._own: list[tuple[_Task, Any, contextvars.Context]] = []
        self._numbers = itertools.count(1)
        self._executor = SimExecutor(world)
        self.set_task_factory(self._make_task)

    def _make_task(self, _loop: Any, coroutine: Any, **more: Any) -> Any:
        context = more.pop("context", None) or contextvars.copy_context()
        task = _Task(next(self._numbers), coroutine, self, context=context, **more)
        self._own.append((task, coroutine, context))
        return task

    def time(self) -> float:
        return self._world.now

    def select(self, timeout: float | None) -> list[Any]:
        """Wait, as a selector would, for the next timer or for another thread."""
        if timeout is None or timeout > 0:
            self._sleeper = thread = self._world.here()
            if timeout is not None:
                self._world.after(timeout, self._world.waker(thread))
            try:
                self._world.wait()
            finally:
                self._sleeper = None
        return []

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        if self._sleeper is not None:
            self._world.waker(self._sleeper)()

    def run_forever(self) -> None:
        # Without the thread's hooks for asynchronous generators, which all loops of this one thread would share.
        self._check_closed()
        self._check_running()
        self._thread_id = threading.get_ident()
        asyncio._set_running_loop(self)
        try:
            while True:
                self._run_once()
                if self._stopping:
                    break
        except Killed:
            self._abandon()
            raise
        finally:
            self._stopping = False
            self._thread_id = None
            asyncio._set_running_loop(None)

    def _abandon(self) -> None:
        """Close the coroutines of a killed process here and now, and not whenever memory is looked through."""
        self.set_exception_handler(lambda *_: None)
        for task, coroutine, context in self._own:
            task._log_destroy_pending = False  # type: ignore[attr-defined]  # asyncio's own name for it
            with contextlib.suppress(BaseException):
                context.run(coroutine.close)
        self._own.clear()

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> Any:
        future = (executor or self._executor).submit(func, *args)
        return asyncio.wrap_future(future, loop=self)

    async def shutdown_default_executor(self, timeout: float | None = None) -> None:
        """There is nothing to shut down."""


class SimFuture(concurrent.futures.Future[Any]):
    """A future that a thread of the world can wait for."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def result(self, timeout: float | None = None) -> Any:
        self.wait()
        return super().result(0)

    def wait(self) -> None:
        """Wait in the running thread."""
        while not self.done():
            wake = self._world.waker(self._world.here())
            self.add_done_callback(functools.partial(_wake, wake))
            self._world.wait()


def _wake(wake: Waker, _: object) -> None:
    wake()


def wait(futures: Iterable[Any]) -> None:
    """Stand in for :func:`concurrent.futures.wait`."""
    for future in futures:
        future.wait()


class SimExecutor:
    """Stands in for ThreadPoolExecutor: its threads are the world's, and belong to the process that asks."""

    def __init__(self, world: World, max_workers: int = 32, name: str = "thread") -> None:
        self._world = world
        self._most = max_workers
        self._name = name
        self._pending: deque[tuple[SimFuture, Callable[[], Any]]] = deque()
        self._running = 0
        self._idle: list[Callable[[], None]] = []

    def submit(self, function: Callable[..., Any], *args: Any, **named: Any) -> SimFuture:
        future = SimFuture(self._world)
        self._pending.append((future, lambda: function(*args, **named)))
        if self._running < self._most:
            self._running += 1
            Thread(self._world.here().process, self._work, self._name)
        return future

    def _work(self) -> None:
        while self._pending:
            future, function = self._pending.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                value = function()
            except Killed:
                raise
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(value)
        self._running -= 1
        if not self._running:
            for tell in self._idle:
                tell()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        if cancel_futures:
            while self._pending:
                self._pending.popleft()[0].cancel()
        while wait and self._running:
            self._idle.append(self._world.waker(self._world.here()))
            self._world.wait()

    def __enter__(self) -> SimExecutor:
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
