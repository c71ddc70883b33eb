"""The emulated account: its jobs, its balance, its limits and its counters."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.emulator.jobs import Job
from airflow_provider_flux.emulator.models import MODELS
from airflow_provider_flux.emulator.settings import Settings


@dataclass
class Counters:
    """What the account has counted since the start or the last reset.

    :param submit_requests: submit requests, accepted or not.
    :param submits: accepted jobs.
    :param polls: poll requests.
    :param downloads: images that were delivered completely.
    :param credential_leaks: downloads that carried an API key.
    """

    submit_requests: int = 0
    submits: int = 0
    polls: int = 0
    downloads: int = 0
    credential_leaks: int = 0


class Account:
    """All jobs of the account. Only the event loop uses it, so it needs no lock."""

    def __init__(self, settings: Settings) -> None:
        self._initial_settings = settings
        self.reset()

    def reset(self) -> None:
        """Delete all jobs and counters, and restore the initial settings."""
        self.settings = self._initial_settings.model_copy(deep=True)
        self.jobs: dict[str, Job] = {}
        self.counters = Counters()
        self._active: list[Job] = []

    def bill_finished_jobs(self) -> None:
        """Subtract the cost of all jobs that have become Ready since the last call from the balance."""
        now = time.time()
        self.settings.credits -= sum(job.settled_cost for job in self._active if job.status(now) == "Ready")
        self._active = [job for job in self._active if job.status(now) == "Pending"]

    def active_jobs(self) -> list[Job]:
        """Return the unfinished jobs, after billing the finished ones."""
        self.bill_finished_jobs()
        return self._active

    def is_full(self, model: str) -> bool:
        """Whether the account, or this model, has reached its limit of active jobs."""
        active = self.active_jobs()
        model_limit = MODELS[model].max_active
        same_model = sum(job.model == model for job in active)
        return len(active) >= self.settings.max_active or (model_limit is not None and same_model >= model_limit)

    def can_afford(self, cost: float) -> bool:
        """Whether the balance covers `cost` credits in addition to all active jobs."""
        return self.settings.credits - sum(job.cost for job in self.active_jobs()) >= cost

    def add(self, job: Job) -> None:
        """Add a new job and count it."""
        self.jobs[job.id] = job
        self._active.append(job)
        self.counters.submits += 1

    def stats(self) -> dict[str, Any]:
        """Return the body of `GET /emulator/stats`."""
        active, now = len(self.active_jobs()), time.time()
        names = ("id", "model", "prompt", "seed", "dialect", "parameters", "polls", "downloads")
        jobs = [
            {name: getattr(job, name) for name in names} | {"status": job.status(now)} for job in self.jobs.values()
        ]
        return {**vars(self.counters), "active": active, "credits": self.settings.credits, "jobs": jobs}
