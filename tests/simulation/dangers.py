"""What can happen to a process at each of its steps, and how a step goes: out, there, and back.

A request that is on its way arrives whatever becomes of the process that sent it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.simulation.world import Killed, Process, Thread, World


@dataclass
class Dangers:
    """How dangerous the world is to processes, until a certain time.

    :param kill: Share of steps at which the process is killed.
    :param freeze: Share of steps at which it freezes.
    :param interrupt: Share of steps at which its task is interrupted.
    :param freezes: Least and most seconds of a freeze.
    :param lag: Usual seconds of one way.
    :param slow: Share of ways that take much longer.
    """

    world: World = field(repr=False)
    until: float
    kill: float = 0.0
    freeze: float = 0.0
    interrupt: float = 0.0
    freezes: tuple[float, float] = (1.0, 60.0)
    lag: float = 0.2
    slow: float = 0.02

    @property
    def are_over(self) -> bool:
        return self.world.now >= self.until

    def way(self) -> float:
        """Return the seconds that one way takes."""
        rng = self.world.rng
        if self.world.chance(self.slow) and not self.are_over:
            return rng.uniform(0.3, 5.0)
        return rng.uniform(0.002, self.lag)

    def before(self, thread: Thread, weight: float = 1.0) -> None:
        """Let something happen right before a step.

        :param weight: How much likelier it is than at other steps.
        """
        world, process = self.world, thread.process
        if self.are_over:
            return
        if world.chance(weight * self.kill / 2):
            process.kill()
            raise Killed
        if world.chance(weight * self.freeze / 2):
            process.freeze(world.rng.uniform(*self.freezes))
            world.sleep(0.0)

    def meanwhile(self, process: Process, seconds: float, weight: float = 1.0) -> None:
        """Let something happen while a step is on its way."""
        world = self.world
        if self.are_over:
            return
        for share, happen in (
            (self.kill / 2, process.kill),
            (self.freeze / 2, lambda: process.freeze(world.rng.uniform(*self.freezes))),
            (self.interrupt, process.interrupt),
        ):
            if world.chance(weight * share):
                world.after(world.rng.uniform(0.0, seconds), happen)


def step(
    dangers: Dangers,
    effect: Callable[[], Any],
    patience: float | None = None,
    late: Any = None,
    weight: float = 1.0,
) -> Any:
    """Do one step of the running thread: the effect happens when the request arrives; return what it gives.

    :param patience: Seconds after which the thread goes on without an answer.
    :param late: The exception that it then gets.
    :param weight: How much likelier it is than at other steps that something happens to the process.
    :raises Exception: what the effect raised.
    """
    world = dangers.world
    dangers.before(world.here(), weight)
    wake = world.waker(world.here())
    _send(dangers, effect, world.here().process, patience, late, wake, weight)
    return world.wait()


async def async_step(
    dangers: Dangers, effect: Callable[[], Any], patience: float | None = None, late: Any = None
) -> Any:
    """Do one step of the running coroutine."""
    world, loop = dangers.world, asyncio.get_running_loop()
    dangers.before(world.here())
    process, future = world.here().process, loop.create_future()

    def settle(value: Any, error: BaseException | None) -> None:
        if future.done():
            return
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)

    def tell(value: Any, error: BaseException | None) -> None:
        if not process.is_gone and not loop.is_closed():
            loop.call_soon_threadsafe(settle, value, error)

    _send(dangers, effect, process, patience, late, tell)
    return await future


def _send(
    dangers: Dangers,
    effect: Callable[[], Any],
    process: Process,
    patience: float | None,
    late: Any,
    tell: Callable[[Any, BaseException | None], None],
    weight: float = 1.0,
) -> None:
    world, there, back = dangers.world, dangers.way(), dangers.way()

    def arrive() -> None:
        value, error = None, None
        try:
            value = effect()
        except Exception as raised:
            error = raised
        world.after(back + getattr(value, "delay", 0.0), lambda: tell(value, error))

    world.after(there, arrive)
    if patience is not None:
        world.after(patience, lambda: tell(None, late))
    dangers.meanwhile(process, there + back, weight)
