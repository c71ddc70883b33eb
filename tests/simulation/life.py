"""A small model of Airflow: task instances with their tries, a triggerer or two, users who clear tasks.

What Airflow keeps goes through JSON here as it does there: a trigger's arguments, its event, a task's result.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_flux.exceptions import FluxError
from tests.simulation.dangers import Dangers
from tests.simulation.loop import SimLoop
from tests.simulation.store import Storage, TaskState
from tests.simulation.world import Interrupted, Process, World


@dataclass
class Habits:
    """How this Airflow is run.

    :param retries: Of each task.
    :param retry_delay: Seconds before a retry.
    :param heartbeat: Seconds after which Airflow takes a process that is silent for dead.
    :param queue: Most seconds that a task waits for a worker.
    :param triggerers: How many there are.
    :param has_state: Whether it has a task state store.
    """

    retries: int = 2
    retry_delay: float = 10.0
    heartbeat: float = 30.0
    queue: float = 3.0
    triggerers: int = 1
    has_state: bool = True


@dataclass
class Row:
    """A trigger in Airflow's database."""

    task: TaskInstance
    path: str
    kwargs: str
    method: str
    next_kwargs: str
    is_active: bool = True


class Airflow:
    """The scheduler, as far as it matters: starts tries, notices deaths, carries events."""

    def __init__(self, world: World, dangers: Dangers, storage: Storage, habits: Habits) -> None:
        self.world = world
        self.dangers = dangers
        self.storage = storage
        self.habits = habits
        self.tasks: list[TaskInstance] = []
        self.written: list[str] = []
        """Everything else that it was given to keep or to log, as text."""
        self.results: list[str] = []
        """What tasks returned, as text."""
        self.triggerers = [Triggerer(self, f"triggerer{number + 1}") for number in range(habits.triggerers)]
        self.invariants: Any = None

    def log(self, text: str) -> None:
        """Take in a line that a process logs."""
        self.written.append(text)
        thread = self.world.current
        self.world.say(thread.process.name if thread else "?", f"log: {text[:200]}")

    def keep(self, value: Any) -> Any:
        """Return what is left of a task's result that was stored as JSON."""
        text = json.dumps(value)
        self.results.append(text)
        return json.loads(text)

    def defer(self, row: Row) -> None:
        """Give a trigger to one of the triggerers."""
        self.triggerers[self.world.rng.randrange(len(self.triggerers))].take(row)

    def fire(self, row: Row, event: Any) -> None:
        """Take in the event of a trigger; the first counts."""
        if not row.is_active:
            self.world.say("airflow", f"a second event for {row.task.name} is dropped")
            return
        row.is_active = False
        row.task.resume(row.method, {**json.loads(row.next_kwargs), "event": event})


class TaskInstance:
    """One task of one run.

    :param make: Makes its operator, anew for each process.
    """

    def __init__(self, airflow: Airflow, run_id: str, task_id: str, make: Callable[[], Any]) -> None:
        self.airflow = airflow
        self.run_id = run_id
        self.task_id = task_id
        self.name = f"{run_id}.{task_id}"
        self.make = make
        self.try_number = 0
        self.tries_left = airflow.habits.retries + 1
        self.state = "waiting"
        self.result: Any = None
        self.error: BaseException | None = None
        self.errors: list[BaseException] = []
        self.process: Process | None = None
        self.row: Row | None = None
        self._ticket = object()
        self.zombies = 0
        """Processes that were taken for dead and were only frozen."""
        self.downstream: TaskInstance | None = None
        airflow.tasks.append(self)

    @property
    def world(self) -> World:
        return self.airflow.world

    def schedule(self, delay: float, queues: bool = True) -> None:
        """Start a try after so many seconds.

        :param queues: Whether it waits for a worker then.
        """
        self.state, ticket = "scheduled", object()
        self._ticket = ticket

        def start() -> None:
            if self._ticket is ticket:
                self.try_number += 1
                self.tries_left -= 1
                self._start("execute", None)

        self.world.after(delay + (self._queue() if queues else 0.0), start)

    def _queue(self) -> float:
        # A fault too: a long queue is nothing that is to outlast the faults.
        most = 3.0 if self.airflow.dangers.are_over else self.airflow.habits.queue
        return self.world.rng.uniform(0.0, most)

    def resume(self, method: str, arguments: dict[str, Any]) -> None:
        """Go on after a deferral."""
        self.state, ticket = "scheduled", object()
        self._ticket = ticket

        def start() -> None:
            if self._ticket is ticket:
                self._start(method, arguments)

        self.world.after(self._queue(), start)

    def clear(self) -> None:
        """Let it run again, as a user does."""
        self.world.say("user", f"clears {self.name}")
        self.world.counts["cleared"] += 1
        if self.downstream is not None:
            self.downstream._reset()
        self.schedule(6.0 if self._reset() else 0.5)

    def _reset(self) -> bool:
        """Forget what there was of it, and return whether it was running."""
        self.state, self._ticket = "waiting", object()
        self.result, self.error, self.tries_left = None, None, self.airflow.habits.retries + 1
        self._forget_row()
        process, self.process = self.process, None
        if process is not None:
            self.world.after(self.world.rng.uniform(0.0, 5.0), process.kill)
        return process is not None

    def _forget_row(self) -> None:
        if self.row is not None:
            self.row.is_active = False
        self.row = None

    def _start(self, method: str, arguments: dict[str, Any] | None) -> None:
        self.state = "running"
        self.process = process = Process(self.world, f"{self.name}#{self.try_number}{'' if arguments is None else '+'}")
        process.may_be_interrupted = True
        process.on_doom = lambda kind: self._doomed(process, kind)
        process.start(lambda: self._live(process, method, arguments or {}))

    def _context(self) -> Any:
        airflow = self.airflow
        ti = SimpleNamespace(
            dag_id="sim",
            task_id=self.task_id,
            run_id=self.run_id,
            map_index=-1,
            try_number=self.try_number,
            max_tries=airflow.habits.retries,
            xcom_push=lambda key, value: airflow.keep(value),
        )
        state = TaskState(airflow.storage, self.name) if airflow.habits.has_state else None
        return {"ti": ti, "outlet_events": None, "task_state_store": state}

    def _live(self, process: Process, method: str, arguments: dict[str, Any]) -> None:
        operator = self.make()
        self.world.say(process.name, f"{method} begins")
        began, known = self.world.now, self.airflow.invariants.known_at_start(self, arguments.get("event"))
        try:
            try:
                value = getattr(operator, method)(self._context(), **arguments)
            except Interrupted:
                operator.on_kill()
                raise
        except TaskDeferred as deferral:
            self._deferred(process, deferral)
        except BaseException as error:
            if process.is_gone:
                raise
            self._failed(process, error)
        else:
            self._succeeded(process, value)
        self.airflow.invariants.on_process_end(self, process, began, known)

    def _is_current(self, process: Process) -> bool:
        if self.process is process:
            self.process = None
            return True
        self.world.say(process.name, "ends, and Airflow takes no notice")
        return False

    def _deferred(self, process: Process, deferral: TaskDeferred) -> None:
        path, kwargs = deferral.trigger.serialize()
        text = json.dumps(kwargs)
        next_kwargs = json.dumps(deferral.kwargs or {})
        self.airflow.written += [text, next_kwargs]
        self.world.say(process.name, f"defers to {path.rpartition('.')[2]}")
        if self._is_current(process):
            self.state = "deferred"
            self.row = row = Row(self, path, text, deferral.method_name, next_kwargs)
            self.airflow.defer(row)
            if deferral.timeout is not None:
                self.world.after(deferral.timeout.total_seconds(), lambda: self._never_fired(row))

    def _never_fired(self, row: Row) -> None:
        if row.is_active:
            self.world.say("airflow", f"{row.task.name}: the trigger never fired")
            self.world.counts["trigger never fired"] += 1
            self._forget_row()
            self._retry()

    def _failed(self, process: Process, error: BaseException) -> None:
        self.airflow.written.append(_words(error))
        self.world.say(process.name, f"fails: {type(error).__name__}: {str(error)[:300]}")
        known = (FluxError, AirflowSkipException, Interrupted)
        if not isinstance(error, known):
            self.world.violate("no foreign error", f"{process.name}: {_words(error)}")
        self.airflow.invariants.on_failure(process, error)
        if not self._is_current(process):
            return
        self.error = error
        self.errors.append(error)
        if isinstance(error, AirflowSkipException):
            self.state = "skipped"
        elif isinstance(error, AirflowFailException):
            self.state = "failed"
        else:
            self._retry()

    def _retry(self) -> None:
        if self.tries_left > 0:
            self.schedule(self.airflow.habits.retry_delay)
        else:
            self.state = "failed"

    def _succeeded(self, process: Process, value: Any) -> None:
        told = self.airflow.keep(value)
        self.world.say(process.name, f"returns {json.dumps(told)[:400]}")
        if self._is_current(process):
            self.state, self.result, self.error = "success", told, None
            self.airflow.invariants.on_success(self)
            if self.downstream is not None:
                self.downstream.schedule(0.5)

    def _doomed(self, process: Process, kind: str) -> None:
        world, habits = self.world, self.airflow.habits
        if self.process is not process:
            return
        if kind == "killed":
            world.after(world.rng.choice((1.0, habits.heartbeat)), lambda: self._lost(process))
        else:
            world.after(habits.heartbeat, lambda: self._silent(process))

    def _silent(self, process: Process) -> None:
        if process.frozen_until > self.world.now:
            # When it wakes up, its supervisor hears that it is not wanted any more, and ends it.
            rest = process.frozen_until - self.world.now
            self.world.after(rest + self.world.rng.uniform(0.0, 30.0), process.kill)
            self.zombies += 1
            self._lost(process)

    def _lost(self, process: Process) -> None:
        if self.process is process:
            self.world.say("airflow", f"{process.name} is taken for dead")
            self.process = None
            self._retry()


def _words(error: BaseException | None) -> str:
    """Return what Airflow logs of an error, with all that led to it."""
    words = []
    while error is not None:
        words.append(f"{type(error).__name__}: {error}")
        error = error.__cause__ or error.__context__
    return "; caused by ".join(words)


@dataclass
class Triggerer:
    """One triggerer, which is started again when it dies."""

    airflow: Airflow
    name: str
    rows: list[Row] = field(default_factory=list)
    process: Process | None = None
    starts: int = 0
    _loop: Any = None
    _news: Any = None

    def __post_init__(self) -> None:
        self._start()

    def _start(self) -> None:
        self.starts += 1
        world = self.airflow.world
        self.process = process = Process(world, f"{self.name}.{self.starts}")
        process.on_doom = lambda kind: self._doomed(process, kind)
        self._loop, self._news = None, None
        process.start(lambda: self._live(process))

    def take(self, row: Row) -> None:
        """Run a trigger, as soon as it is seen in the database."""
        self.rows.append(row)
        self.airflow.world.after(self.airflow.world.rng.uniform(0.0, 1.5), self._look)

    def _look(self) -> None:
        if self._loop is not None and not self.process_is_gone:
            self._loop.call_soon_threadsafe(self._news.set)

    @property
    def process_is_gone(self) -> bool:
        return self.process is None or self.process.is_gone

    def _doomed(self, process: Process, kind: str) -> None:
        world, habits = self.airflow.world, self.airflow.habits
        if kind == "killed":
            world.after(world.rng.choice((1.0, habits.heartbeat)), lambda: self._again(process))
        else:
            world.after(habits.heartbeat, lambda: self._silent(process))

    def _silent(self, process: Process) -> None:
        """Others take what a triggerer has that does not say that it lives."""
        if process is not self.process or process.frozen_until <= self.airflow.world.now:
            return
        others = [other for other in self.airflow.triggerers if other is not self]
        if others:
            rows, self.rows = self.rows, []
            for row in rows:
                self.airflow.world.say("airflow", f"{others[0].name} takes the trigger of {row.task.name} too")
                others[0].take(row)

    def _again(self, process: Process) -> None:
        if process is self.process:
            self.rows = [row for row in self.rows if row.is_active]
            self._start()

    def _live(self, process: Process) -> None:
        world = self.airflow.world
        self._loop, loop = (made := SimLoop(world)), made
        world.say(process.name, "begins")
        loop.run_until_complete(self._serve(process))

    async def _serve(self, process: Process) -> None:
        self._news = news = asyncio.Event()
        running: dict[int, tuple[Row, asyncio.Task[None]]] = {}
        while True:
            for row in self.rows:
                if row.is_active and id(row) not in running:
                    task = asyncio.get_running_loop().create_task(self._run(row, process))
                    running[id(row)] = (row, task)
            with contextlib.suppress(TimeoutError):
                # It looks for cancelled ones while there are any, and rests else.
                busy = any(not task.done() for _, task in running.values())
                await asyncio.wait_for(news.wait(), 2.0 if busy else None)
            news.clear()
            for row, task in running.values():
                if not row.is_active and not task.done():
                    task.cancel()

    async def _run(self, row: Row, process: Process) -> None:
        airflow = self.airflow
        module, _, name = row.path.rpartition(".")
        trigger = getattr(importlib.import_module(module), name)(**json.loads(row.kwargs))
        airflow.world.say(process.name, f"runs the trigger of {row.task.name}")
        began = airflow.world.now
        try:
            async for event in trigger.run():
                payload = json.loads(text := json.dumps(event.payload))
                airflow.written.append(text)
                airflow.world.say(process.name, f"event for {row.task.name}: {json.dumps(payload)[:300]}")
                fire = functools.partial(airflow.fire, row, payload)
                airflow.world.after(airflow.world.rng.uniform(0.0, 1.0), fire)
                airflow.invariants.on_trigger_end(row.task, process, began, json.loads(row.kwargs))
                return
        except Exception as error:
            airflow.world.violate("no foreign error", f"trigger of {row.task.name}: {_words(error)}")
