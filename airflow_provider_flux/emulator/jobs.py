"""One accepted request: what it was, what it costs, and the status that follows from the clock."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_flux.emulator.inputs import megapixels
from airflow_provider_flux.emulator.models import MEGAPIXEL, MODELS
from airflow_provider_flux.emulator.settings import Settings
from airflow_provider_flux.emulator.sizes import output_size

_MAX_CHARACTERS = 4096


@dataclass
class Job:
    """One accepted request.

    Nothing runs in the background: a job's status is computed from the clock whenever it is needed.

    :param location: where the job can be polled: ``comet``, ``global``, or the name of a BFL cluster.
    :param cost: the estimate of the submit response, in credits; `settled_cost` is billed when the job is ready.
    :param input_mp: megapixels of all input images.
    :param submitted: time of the submit in epoch seconds; `ready_at` is the time at which the job ends.
    :param request_moderated: whether the prompt is rejected at once.
    :param content_moderated: whether the finished image is withheld.
    :param downloads: how many times the image was delivered completely.
    """

    dialect: str
    location: str
    model: str
    parameters: dict[str, Any]
    seed: int
    size: tuple[int, int]
    file_format: str
    cost: float
    settled_cost: float
    input_mp: float
    submitted: float
    ready_at: float
    request_moderated: bool
    content_moderated: bool
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    polls: int = 0
    downloads: int = 0

    @property
    def prompt(self) -> str:
        """The prompt; empty if the request had none."""
        return self.parameters.get("prompt") or ""

    @property
    def subject(self) -> str:
        """The text in which a fault's `match` is searched."""
        return f"{self.prompt} {self.model}"

    def status(self, now: float) -> str:
        """Return the status word at `now`, in epoch seconds."""
        if self.request_moderated:
            return "Request Moderated"
        if now < self.ready_at:
            return "Pending"
        return "Content Moderated" if self.content_moderated else "Ready"


def create_job(settings: Settings, dialect: str, location: str, model: str, body: Mapping[str, Any]) -> Job:
    """Return the job for a validated request body. The job is not yet part of the account."""
    spec = MODELS[model]
    now, prompt = time.time(), (body.get("prompt") or "").lower()
    size, input_mp = output_size(spec, body), megapixels(spec, body)
    output_mp = size[0] * size[1] / MEGAPIXEL
    price = spec.tiers.get(body.get("resolution", ""), spec.price)
    cost = round(price + spec.per_mp * (max(0.0, output_mp - 1) + input_mp), 2)
    default_format = spec.parameters["output_format"].default if "output_format" in spec.parameters else "jpeg"
    seed = body.get("seed")
    moderated = any(word.lower() in prompt for word in settings.moderate)
    return Job(
        dialect=dialect,
        location=location,
        model=model,
        parameters=_abridge(body),
        seed=random.randrange(2**32) if seed is None else seed,  # noqa: S311 - not used for security
        size=size,
        file_format=body.get("output_format") or default_format,
        cost=cost,
        settled_cost=round(cost * settings.settled_factor, 2),
        input_mp=input_mp,
        submitted=now,
        ready_at=now if moderated else now + settings.draw_duration(),
        request_moderated=moderated,
        content_moderated=any(word.lower() in prompt for word in settings.moderate_output),
    )


def _abridge(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parameters as the stats report them, without the webhook's secret."""

    def shown(name: str, value: Any) -> Any:
        if name == "webhook_secret" and value:
            return "***"
        # A reference image is megabytes of base64; its start and length are enough to identify it.
        if isinstance(value, str) and name != "prompt" and len(value) > _MAX_CHARACTERS:
            return f"{value[:60]}... ({len(value)} characters)"
        return value

    return {name: shown(name, value) for name, value in body.items()}
