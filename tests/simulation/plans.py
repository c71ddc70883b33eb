"""What a seed decides: the tasks, where their images go, how dangerous the world is, and how it fails."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
from tests.simulation import weather
from tests.simulation.api import SECRET
from tests.simulation.budgets import Budget
from tests.simulation.dangers import Dangers
from tests.simulation.life import Habits
from tests.simulation.weather import Spell, Weather
from tests.simulation.world import START, World

PROMPT = "PROMPT-of-the-author"
BUCKET = "bucket"


@dataclass
class Plan:
    """The tasks of one schedule.

    :param kind: ``"image"``: FluxGenerateOperator; ``"batch"``: FluxGenerateBatchOperator; ``"chain"``:
        FluxGenerateOperator, then FluxToS3Operator.
    :param runs: Number of runs, which all want the same images.
    :param place: Where the receipts are: ``"store"``, ``"state"`` or ``"nowhere"``.
    :param shared: Whether all runs have one place, with ``reuse="always"``; else each has its own.
    :param recipes: What makes the images differ.
    :param starts: Seconds after which each run begins.
    :param clears: When users clear a task: seconds, and which one.
    """

    kind: str
    runs: int
    place: str
    shared: bool
    recipes: list[str]
    starts: list[float]
    clears: list[tuple[float, int]]
    policies: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    until: float = START
    budget: Budget = Budget(None)  # noqa: RUF009 - it is frozen

    def run_ids(self) -> list[str]:
        """Return the runs' ids."""
        return [f"run{number + 1}" for number in range(self.runs)]

    def folder(self, run_id: str) -> str:
        """Return where a run's images go."""
        return f"s3://{BUCKET}/{'all' if self.shared else run_id}/"

    def uri(self, run_id: str, recipe: str) -> str:
        """Return where one image goes."""
        return f"{self.folder(run_id)}{recipe}.png"

    def operator(self, run_id: str, task_id: str, generation: Callable[[], Any]) -> Any:
        """Make a task's operator."""
        if task_id == "upload":
            return FluxToS3Operator(
                task_id=task_id,
                generation=generation(),
                s3_bucket=BUCKET,
                s3_key=self.uri(run_id, self.recipes[0]).partition(f"{BUCKET}/")[2],
                replace=True,
            )
        if self.kind == "batch":
            requests: list[str | dict[str, Any]] = [
                {"prompt": f"{PROMPT} {recipe}", "file_name": f"{recipe}.png", "webhook_secret": SECRET}
                for recipe in self.recipes
            ]
            return FluxGenerateBatchOperator(
                task_id=task_id,
                model="flux-2-pro",
                requests=requests,
                output_uri=self.folder(run_id),
                **self.policies,
                **self.options,
            )
        return FluxGenerateOperator(
            task_id=task_id,
            model="flux-2-pro",
            prompt=f"{PROMPT} {self.recipes[0]}",
            webhook_secret=SECRET,
            output_uri=self.uri(run_id, self.recipes[0]) if self.place == "store" else None,
            **self.policies,
            **self.options,
        )


def make_plan(rng: Random, has_state: bool) -> Plan:
    """Return the tasks that the die gives.

    :param has_state: Whether this Airflow has a task state store.
    """
    kind = rng.choices(("image", "batch", "chain"), (6, 2, 2))[0]
    runs = rng.choice((1, 1, 2, 3, 4)) if kind == "image" else rng.choice((1, 1, 2)) if kind == "batch" else 1
    place = "store" if kind == "batch" else rng.choices(("store", "state", "nowhere"), (8, 1 if has_state else 0, 1))[0]
    if kind == "chain":
        place = rng.choices(("state", "nowhere"), (3 if has_state else 0, 1))[0]
    shared = runs > 1 and place == "store" and rng.random() < 0.8
    recipes = [f"RECIPE-{number}" for number in range(rng.randint(2, 5) if kind == "batch" else 1)]
    together = rng.random() < 0.6
    starts = [rng.uniform(0.0, 1.0 if together else 60.0) for _ in range(runs)]
    clears = [(rng.uniform(1.0, 200.0), rng.randrange(4)) for _ in range(rng.choice((0, 0, 0, 1, 2)))]
    never = not shared and rng.random() < 0.05
    policies: dict[str, Any] = {
        "reuse": "always" if shared else "never" if never else "run",
        "on_orphan": rng.choice(("resubmit", "resubmit", "resubmit", "fail")),
        "on_expired": rng.choice(("fail", "resubmit")),
        "on_moderated": rng.choice(("fail", "skip")),
    }
    options: dict[str, Any] = {"timeout": rng.choice((120, 600))}
    if place != "nowhere":
        options |= {"moderation_retries": rng.choice((0, 0, 1, 3))}
    if kind == "batch":
        options |= {"max_active": rng.choice((1, 2, 24))}
        if rng.random() < 0.2:
            options |= {"max_cost": 100.0}
    else:
        options |= {"deferrable": rng.random() < 0.8, "defer_after": rng.choice((0.0, 5.0))}
        if kind == "chain":
            options |= {"wait_for_completion": rng.random() < 0.4}
    return Plan(kind, runs, place, shared, recipes, starts, clears, policies, options)


def make_habits(rng: Random, has_state: bool) -> Habits:
    """Return how this Airflow is run."""
    return Habits(
        retries=rng.choice((0, 1, 2, 3)),
        retry_delay=rng.choice((1.0, 10.0, 60.0)),
        heartbeat=rng.choice((10.0, 30.0)),
        queue=rng.choice((1.0, 5.0, 5.0, 100.0, 800.0)),
        triggerers=rng.choice((1, 1, 2)),
        has_state=has_state,
    )


def make_dangers(world: World, until: float) -> Dangers:
    """Return how dangerous this world is."""
    rng = world.rng
    dangers = Dangers(world, until, lag=rng.choice((0.05, 0.3, 1.0)), slow=rng.choice((0.0, 0.02, 0.2)))
    style = rng.choice(("calm", "killing", "freezing", "freezing", "all", "interrupting"))
    if style in ("killing", "all"):
        dangers.kill = rng.choice((0.01, 0.05))
    if style in ("freezing", "all"):
        dangers.freeze = rng.choice((0.01, 0.04))
        dangers.freezes = rng.choice(((1.0, 20.0), (20.0, 120.0), (80.0, 400.0), (80.0, 400.0)))
    if style in ("interrupting", "all"):
        dangers.interrupt = rng.choice((0.01, 0.05))
    return dangers


def make_weather(world: World, until: float) -> Weather:
    """Return how API and stores fail."""
    rng = world.rng
    made = Weather(world, until)
    every = {
        "poll": (weather.POLL, (0.0, 0.05, 0.4)),
        "refused": (weather.REFUSED, (0.0, 0.1, 0.4)),
        "lost": (weather.LOST, (0.0, 0.1, 0.4)),
        "delivery": (weather.DELIVERY, (0.0, 0.2, 0.5)),
        "store": (weather.STORE, (0.0, 0.02, 0.1)),
    }
    for what, (kinds, rates) in every.items():
        if rng.random() < 0.5:
            continue
        made.kinds[what] = tuple(rng.sample(kinds, rng.randint(1, min(4, len(kinds)))))
        if what == "poll" and rng.random() < 0.3:
            made.kinds[what] += ("another job",)
        made.rates[what] = rng.choice(rates)
        if rng.random() < 0.4:
            start = START + rng.uniform(0.0, 60.0)
            length = rng.choice((5.0, 30.0, 120.0, 400.0)) if what != "lost" else 5.0
            made.spells[what] = [Spell(start, start + length, made.kinds[what])]
    return made
