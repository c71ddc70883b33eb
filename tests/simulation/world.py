"""A world with a clock and a die of its own: processes whose threads take turns, and every event in one order.

A thread of a simulated process is a greenlet. It runs until it waits: for a request's answer, for another thread, for
time to pass. What is on its way (a request, an answer, an alarm) is a callback in one queue, ordered by time. So one
seed gives one schedule.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Any, TypeVar

import greenlet

T = TypeVar("T")

START = 1_800_000_000.0
"""Unix time at which every world begins."""
MOST_EVENTS = 60_000
"""Events after which a schedule is taken to have no end."""


class Killed(BaseException):
    """The process has been killed: nothing catches it, nothing it does has an effect any more."""


class Interrupted(BaseException):
    """What Airflow raises in a task's main thread to end it, such as AirflowTaskTimeout."""


class EndlessError(Exception):
    """The schedule does not come to an end."""


class Attempt:
    """One paid request, from the last look before it until its receipt tells of the job.

    :param recipe: Which image it asks for.
    :param disturbed: Whether its process died, froze or was interrupted meanwhile.
    """

    def __init__(self, process: Process, recipe: str, disturbed: bool) -> None:
        self.process = process
        self.recipe = recipe
        self.disturbed = disturbed
        self.is_open = True


class Process:
    """A worker's try or a triggerer.

    :param name: How the schedule calls it.
    """

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.is_dead = False
        self.has_ended = False
        self.frozen_until = 0.0
        self.may_be_interrupted = False
        self.main: Thread | None = None
        self.attempts: list[Attempt] = []
        self.faults: list[float] = []
        """When something that was injected hit it."""
        self.on_doom: Callable[[str], None] = lambda kind: None
        world.processes.append(self)

    @property
    def is_gone(self) -> bool:
        """Whether nothing of it has an effect any more."""
        return self.is_dead or self.world.is_closing

    def start(self, function: Callable[[], None]) -> None:
        """Run ``function`` in the main thread."""
        self.main = Thread(self, function, "main")

    def kill(self) -> None:
        """SIGKILL."""
        if not self.is_dead:
            self.is_dead = True
            self._disturb()
            if not self.has_ended:
                self.world.say(self.name, "is killed")
                self.world.counts["killed"] += 1
                self.on_doom("killed")

    def freeze(self, seconds: float) -> None:
        """SIGSTOP, and SIGCONT after so many seconds."""
        if not self.is_gone and not self.has_ended and self.frozen_until <= self.world.now:
            self.world.say(self.name, f"freezes for {seconds:.0f} s")
            self.world.counts["frozen"] += 1
            self._disturb()
            self.frozen_until = self.world.now + seconds
            self.on_doom("frozen")

    def interrupt(self) -> None:
        """Raise in the main thread, as Airflow does when the task's time is over."""
        has_begun = self.main is not None and self.main.turn and not self.has_ended
        if self.may_be_interrupted and has_begun and not self.is_gone:
            self.may_be_interrupted = False
            self.world.say(self.name, "is interrupted")
            self.world.counts["interrupted"] += 1
            self._disturb()
            assert self.main is not None
            self.world.waker(self.main)(error=Interrupted("the task's time is over"))

    def _disturb(self) -> None:
        self.faults.append(self.world.now)
        for attempt in self.attempts:
            if attempt.is_open:
                attempt.disturbed = True
        for thread in self.world.threads:
            if thread.process is self:
                thread.disturb()


class Thread:
    """One thread of a process, which starts at once."""

    def __init__(self, process: Process, function: Callable[[], None], name: str) -> None:
        self.process = process
        self.name = name
        self.has_doubt = False
        """Whether a write of a note failed, and it has not found out since whether it took effect."""
        self._has_just_looked = False
        self.disturbed_since_look = False
        """Whether its process was disturbed right after it looked at a receipt, when it could not know any more."""
        self.turn = 0
        self._greenlet = greenlet.greenlet(lambda *_: self._run(function), parent=process.world.hub)
        process.world.threads.append(self)
        process.world.waker(self)()

    def _run(self, function: Callable[[], None]) -> None:
        try:
            function()
        except BaseException:
            if not self.process.is_gone:
                raise
        finally:
            if self.process.main is self:
                self.process.has_ended = True

    def go_on(self, value: Any, error: BaseException | None) -> None:
        """Let it run until it waits again."""
        world = self.process.world
        world.current, before = self, world.current
        self.turn += 1
        try:
            if error is None:
                self._greenlet.switch(value)
            else:
                self._greenlet.throw(error)
        finally:
            world.current = before

    def looks(self) -> None:
        """Note that it looks at a receipt now."""
        self._has_just_looked, self.disturbed_since_look = True, False

    def acts(self) -> None:
        """Note that it does anything else."""
        self._has_just_looked = self.disturbed_since_look = False

    def disturb(self) -> None:
        """Note that its process is disturbed."""
        self.disturbed_since_look = self._has_just_looked

    def unwind(self) -> None:
        """Bring it to its end, without effect."""
        while self._greenlet:
            self.go_on(None, Killed())

    @property
    def is_over(self) -> bool:
        return self._greenlet.dead


class Waker:
    """Lets a thread go on from one wait; whatever comes after the first call does nothing."""

    def __init__(self, world: World, thread: Thread) -> None:
        self._world = world
        self._thread = thread
        self._turn = thread.turn

    def __call__(self, value: Any = None, error: BaseException | None = None) -> None:
        """Let it go on, as soon as its process is not frozen."""
        self._world.at(self._thread.process.frozen_until, lambda: self._go_on(value, error))

    def _go_on(self, value: Any, error: BaseException | None) -> None:
        thread = self._thread
        if thread.turn != self._turn or thread.is_over or thread.process.is_gone:
            return
        if thread.process.frozen_until > self._world.now:
            self(value, error)
        else:
            thread.go_on(value, error)


class World:
    """The clock, the die, the queue of events, and what they came to.

    :param seed: Decides everything.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.rng = random.Random(seed)
        self.now = START
        self.current: Thread | None = None
        self.processes: list[Process] = []
        self.threads: list[Thread] = []
        self.trace: list[tuple[float, str, str]] = []
        self.violations: list[str] = []
        self.counts: Counter[str] = Counter()
        self.is_closing = False
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self.hub = greenlet.getcurrent()
        self._events = 0

    def say(self, who: str, what: str) -> None:
        """Write a line of the schedule."""
        if self.is_closing:
            return
        self.trace.append((self.now - START, who, what))

    def violate(self, rule: str, what: str) -> None:
        """Note that a promise is broken."""
        self.say("!!!", f"{rule}: {what}")
        self.violations.append(f"{rule}: {what}")

    def chance(self, share: float) -> bool:
        """Throw the die."""
        return share > 0 and self.rng.random() < share

    def at(self, moment: float, callback: Callable[[], None]) -> None:
        """Call back at that time."""
        heapq.heappush(self._queue, (max(moment, self.now), next(self._numbers), callback))

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call back after that time."""
        self.at(self.now + seconds, callback)

    def run(self, until: float = float("inf")) -> None:
        """Let everything happen that is to happen, up to a time.

        :raises EndlessError: if there is no end of it.
        """
        while self._queue and self._queue[0][0] <= until:
            moment, _, callback = heapq.heappop(self._queue)
            self.now = max(self.now, moment)
            self._events += 1
            if self._events > MOST_EVENTS:
                raise EndlessError
            callback()
        if until < float("inf"):
            self.now = max(self.now, until)

    def waker(self, thread: Thread) -> Waker:
        """Return what lets a thread go on from where it waits now, or is about to; only the first call counts."""
        return Waker(self, thread)

    def here(self) -> Thread:
        """Return the thread that runs.

        :raises Killed: if its process has been killed.
        """
        if self.is_closing or self.current is None or self.current.process.is_dead:
            raise Killed
        return self.current

    def wait(self) -> Any:
        """Wait in the running thread until it is woken; return the value it is given."""
        self.here()
        loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self.hub.switch()
        finally:
            asyncio._set_running_loop(loop)

    def sleep(self, seconds: float) -> None:
        """Let time pass in the running thread."""
        thread = self.here()
        thread.acts()
        self.after(seconds, self.waker(thread))
        self.wait()

    def close(self) -> None:
        """Unwind every thread that has not come to its end, without effect."""
        self.is_closing = True
        self._queue.clear()
        for thread in self.threads:
            thread.unwind()
        # They refer to one another in circles, which the garbage collector need not see.
        self.threads.clear()
        self.processes.clear()

    def lines(self) -> list[str]:
        """Return the schedule, a line for each step."""
        return [f"{moment:10.3f}  {who:<22} {what}" for moment, who, what in self.trace]
