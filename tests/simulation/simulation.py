"""One schedule: a seed becomes a world, which runs until all has come to rest, and is then looked at."""

from __future__ import annotations

import functools
import gc
import traceback
from collections import Counter
from dataclasses import dataclass, field

from airflow.sdk.execution_time import context as airflow_context

from tests.simulation.api import Api
from tests.simulation.budgets import PRICE, make_budget
from tests.simulation.invariants import ENDS, Invariants
from tests.simulation.life import Airflow, TaskInstance
from tests.simulation.plans import Plan, make_dangers, make_habits, make_plan, make_weather
from tests.simulation.seams import STAGE
from tests.simulation.store import Storage
from tests.simulation.world import START, EndlessError, World

# The task state store came with Airflow 3.3.
HAS_STATE = hasattr(airflow_context, "NEVER_EXPIRE")


@dataclass
class Outcome:
    """What came of one schedule."""

    seed: int
    violations: list[str]
    counts: Counter[str] = field(default_factory=Counter)
    lines: list[str] = field(default_factory=list)


def simulate(seed: int) -> Outcome:
    """Run the schedule of a seed, within :func:`tests.simulation.seams.simulated`."""
    world = World(seed)
    gc_was_on = gc.isenabled()
    gc.disable()
    try:
        _run(world)
    except BaseException:
        world.violate("the simulation itself", traceback.format_exc())
    finally:
        world.close()
        if gc_was_on:
            gc.enable()
    return Outcome(seed, world.violations, world.counts, world.lines())


def _run(world: World) -> None:
    rng = world.rng
    until = START + rng.choice((60.0, 200.0, 600.0))
    plan = make_plan(rng, HAS_STATE)
    plan.budget = make_budget(world.seed)
    dangers, weather = make_dangers(world, until), make_weather(world, until)
    fates = rng.choice(((0.0, 0.0), (0.0, 0.0), (0.2, 0.0), (0.0, 0.2)))
    api = Api(world, weather, rng.choice(("cometapi", "bfl")), rng.choice((1, 2, 24, 24)), fates)
    if plan.budget.credits is not None:
        api.price = PRICE - 0.5
    storage = Storage(world, dangers, weather)
    airflow = Airflow(world, dangers, storage, make_habits(rng, HAS_STATE))
    invariants = Invariants(world, plan, api, storage, airflow)
    airflow.invariants = invariants
    STAGE.set(world, dangers, api, storage, airflow.log, plan.budget)
    world.say("plan", repr(plan))
    world.say("plan", f"{airflow.habits} {weather.rates} {weather.kinds} {weather.spells} {fates} {dangers}")
    _begin(airflow, plan)
    try:
        world.at(until, lambda: world.say("plan", "nothing fails any more"))
        world.run()
        # Users clear what has failed, now that everything works again; some jobs are slow.
        for wait in (10.0, 400.0, 400.0):
            for task in [task for task in airflow.tasks if task.state == "failed"]:
                world.after(wait, task.clear)
            world.run()
    except EndlessError:
        world.violate(ENDS, "the schedule has no end")
        return
    invariants.check()


def _begin(airflow: Airflow, plan: Plan) -> None:
    first: list[TaskInstance] = []
    for run_id, start in zip(plan.run_ids(), plan.starts, strict=True):
        paint = _task(airflow, plan, run_id, "paint", None)
        first.append(paint)
        if plan.kind == "chain":
            paint.downstream = _task(airflow, plan, run_id, "upload", paint)
        paint.schedule(start, queues=False)
    for moment, number in plan.clears:
        airflow.world.after(moment, functools.partial(_clear, first[number % len(first)]))


def _clear(task: TaskInstance) -> None:
    if task.state not in ("waiting", "scheduled"):
        task.clear()


def _task(airflow: Airflow, plan: Plan, run_id: str, task_id: str, before: TaskInstance | None) -> TaskInstance:
    return TaskInstance(
        airflow, run_id, task_id, lambda: plan.operator(run_id, task_id, lambda: before and before.result)
    )
