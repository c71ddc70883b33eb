"""The settings of the emulated account, which the control API can change at any time."""

from __future__ import annotations

import random
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

Shape = Literal["flat", "wrapped", "replicate"]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Settings(BaseModel):
    """How the emulated account behaves.

    :param duration: seconds that a job takes, or the bounds between which each job's duration is drawn.
    :param link_ttl: seconds until a download link expires, counted from the moment the job is ready; null means the
        model's own: 600, or 3600 for FLUX 3.
    :param max_active: maximum number of unfinished jobs; a further submit returns HTTP 429.
    :param credits: balance in credits; a job is billed when it becomes Ready.
    :param moderate: words in a prompt that make the job's status "Request Moderated".
    :param moderate_output: words in a prompt that make the finished job's status "Content Moderated".
    :param renew_links: whether each poll signs a new link, which expires that long after the poll.
    :param settled_factor: the billed cost of a finished job as a multiple of the cost in its submit response.
    :param content_credentials: whether images contain C2PA content credentials, which are not signed.
    :param shape: the form of poll responses: ``flat`` as BFL's own, ``wrapped`` in a task envelope, or ``replicate``.
    """

    model_config = ConfigDict(extra="forbid")

    duration: Seconds | tuple[Seconds, Seconds] = 2.0
    link_ttl: Seconds | None = None
    max_active: Annotated[int, Field(ge=0)] = 24
    credits: Annotated[float, Field(allow_inf_nan=False)] = 10_000.0
    moderate: list[Annotated[str, Field(min_length=1)]] = ["nsfw"]
    moderate_output: list[Annotated[str, Field(min_length=1)]] = ["gore"]
    renew_links: bool = False
    settled_factor: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 1.0
    content_credentials: bool = True
    shape: Shape = "flat"

    @model_validator(mode="after")
    def _check_bounds(self) -> Settings:
        if isinstance(self.duration, tuple) and self.duration[0] > self.duration[1]:
            raise ValueError("duration: the lower bound is greater than the upper bound")
        return self

    def draw_duration(self) -> float:
        """Return the duration of a new job in seconds."""
        bounds = self.duration if isinstance(self.duration, tuple) else (self.duration, self.duration)
        return random.uniform(*bounds)  # noqa: S311 - not used for security
