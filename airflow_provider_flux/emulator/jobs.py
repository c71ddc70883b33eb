"""The account: its settings, its jobs and what has been counted.

Nothing runs in the background. What state a job is in follows from the clock whenever someone asks.
"""

from __future__ import annotations

import random
import time
import uuid
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from airflow_provider_flux.emulator.inputs import megapixels, output_size
from airflow_provider_flux.emulator.models import MODELS

Shape = Literal["flat", "wrapped", "replicate"]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """How the emulated account behaves; all of it can be changed while it runs.

    :param duration: seconds a job takes, or the bounds between which each job's time is drawn.
    :param link_ttl: seconds that a delivery link works, from the moment the job became ready.
    :param max_active: jobs that may be unfinished at once; a submit beyond is answered with 429.
    :param credits: the balance; a job that becomes Ready is charged.
    :param moderate: words that make a prompt "Request Moderated".
    :param moderate_output: words that make a job "Content Moderated" once it is done.
    :param renew_links: whether every poll signs a new link that lives `link_ttl` from then.
    :param settled_factor: what a finished job costs, as a multiple of what its submit has estimated.
    :param shape: form of the poll's answer: BFL's own, a task envelope, or Replicate's.
    """

    model_config = ConfigDict(extra="forbid")

    duration: Seconds | tuple[Seconds, Seconds] = 2.0
    link_ttl: Seconds = 600.0
    max_active: Annotated[int, Field(ge=0)] = 24
    credits: Annotated[float, Field(allow_inf_nan=False)] = 10_000.0
    moderate: list[Annotated[str, Field(min_length=1)]] = ["nsfw"]
    moderate_output: list[Annotated[str, Field(min_length=1)]] = ["gore"]
    renew_links: bool = False
    settled_factor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    shape: Shape = "flat"

    @model_validator(mode="after")
    def _bounds_in_order(self) -> Settings:
        if isinstance(self.duration, tuple) and self.duration[0] > self.duration[1]:
            raise ValueError("duration: the first bound is above the second")
        return self

    def draw_duration(self) -> float:
        """Seconds that the next job takes."""
        bounds = self.duration if isinstance(self.duration, tuple) else (self.duration, self.duration)
        return random.uniform(*bounds)  # noqa: S311 - no secret


@dataclass
class Job:
    """One accepted request. `place` says where its result is found: comet, global or a BFL cluster."""

    dialect: str
    place: str
    model: str
    parameters: dict[str, Any]
    seed: int
    size: tuple[int, int]
    file_format: str
    cost: float
    input_mp: float
    submitted: float
    ready_at: float
    refused: bool
    withheld: bool
    settled_cost: float
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    polls: int = 0
    downloads: int = 0

    @property
    def prompt(self) -> str:
        """The prompt, empty where the request had none."""
        return self.parameters.get("prompt") or ""

    @property
    def subject(self) -> str:
        """What a fault's `match` is looked for in."""
        return f"{self.prompt} {self.model}"

    def status(self, now: float) -> str:
        """The job's status word at the epoch second `now`."""
        if self.refused:
            return "Request Moderated"
        if now < self.ready_at:
            return "Pending"
        return "Content Moderated" if self.withheld else "Ready"


@dataclass
class Counters:
    """Requests seen. `submits` are jobs made, `downloads` are images that went out whole."""

    submit_requests: int = 0
    submits: int = 0
    polls: int = 0
    downloads: int = 0
    credential_leaks: int = 0


class Store:
    """All jobs of the account. The event loop is its only user, so it needs no lock."""

    def __init__(self, settings: Settings) -> None:
        self._start = settings
        self.reset()

    def reset(self) -> None:
        """Forget jobs and counts, and put the settings back to what they were at the start."""
        self.settings = self._start.model_copy(deep=True)
        self.jobs: dict[str, Job] = {}
        self.counters = Counters()
        self._active: list[Job] = []

    def active(self) -> list[Job]:
        """The unfinished jobs. Jobs that have finished since the last look are charged here."""
        now = time.time()
        for job in self._active:
            if job.status(now) == "Ready":
                self.settings.credits -= job.settled_cost
        self._active = [job for job in self._active if job.status(now) == "Pending"]
        return self._active

    def is_full(self, model: str) -> bool:
        """Whether the account, or this model, has no room for another active job."""
        active = self.active()
        own_limit = MODELS[model].max_active
        of_model = sum(job.model == model for job in active)
        return len(active) >= self.settings.max_active or (own_limit is not None and of_model >= own_limit)

    def can_pay(self, cost: float) -> bool:
        """Whether the balance covers `cost` credits after all that is still running."""
        return self.settings.credits - sum(job.cost for job in self.active()) >= cost

    def make(self, job: Job) -> None:
        """Take a job in."""
        self.jobs[job.id] = job
        self._active.append(job)
        self.counters.submits += 1

    def stats(self) -> dict[str, Any]:
        """What `GET /emulator/stats` answers."""
        active, now = len(self.active()), time.time()
        names = ("id", "model", "prompt", "seed", "dialect", "polls", "downloads")
        jobs = [
            {name: getattr(job, name) for name in names}
            | {"status": job.status(now), "parameters": _shown(job.parameters)}
            for job in self.jobs.values()
        ]
        balance = self.settings.credits
        return {**vars(self.counters), "active": active, "credits": balance, "jobs": jobs}


def plan(settings: Settings, dialect: str, place: str, model: str, body: dict[str, Any]) -> Job:
    """The job that a checked request body asks for; nothing is stored yet."""
    known = MODELS[model]
    now, prompt = time.time(), (body.get("prompt") or "").lower()
    refused = any(word.lower() in prompt for word in settings.moderate)
    size, input_mp = output_size(known, body), megapixels(known, body)
    output_mp = size[0] * size[1] / (1024 * 1024)
    format_rule = known.parameters.get("output_format")
    seed = body.get("seed")
    cost = round(known.price + known.per_mp * (max(0.0, output_mp - 1) + input_mp), 2)
    return Job(
        dialect=dialect,
        place=place,
        model=model,
        parameters=_kept(body),
        seed=random.randrange(2**32) if seed is None else seed,  # noqa: S311 - no secret
        size=size,
        file_format=body.get("output_format") or (format_rule.default if format_rule else "jpeg"),
        cost=cost,
        settled_cost=round(cost * settings.settled_factor, 2),
        input_mp=input_mp,
        submitted=now,
        ready_at=now if refused else now + settings.draw_duration(),
        refused=refused,
        withheld=any(word.lower() in prompt for word in settings.moderate_output),
    )


def _kept(body: dict[str, Any]) -> dict[str, Any]:
    # A reference image is megabytes of base64; its start and length are enough to recognise it.
    return {
        name: f"{value[:60]}... ({len(value)} characters)"
        if isinstance(value, str) and name != "prompt" and len(value) > 4096
        else value
        for name, value in body.items()
    }


def _shown(parameters: dict[str, Any]) -> dict[str, Any]:
    secret = {"webhook_secret": "***"} if parameters.get("webhook_secret") else {}
    return {**parameters, **secret}
