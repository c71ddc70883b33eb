"""All standing faults: which one strikes a request, and the exchange that suffers it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any
from uuid import uuid4

from starlette.responses import Response

from airflow_provider_flux.emulator.dialects import Dialect
from airflow_provider_flux.emulator.faults import Fault


async def exchange(
    fault: Fault | None, on: str, dialect: Dialect, handle: Callable[[], Awaitable[Response]]
) -> Response:
    """Answer a request through `handle`, or as `fault` wants it."""
    if fault is None:
        return await handle()
    answer = await handle() if fault.accept else None
    await asyncio.sleep(fault.delay)
    return fault.answer(on, dialect) or answer or await handle()


@dataclass
class Standing:
    """A fault that has been ordered, with how often it let a request pass and how often it struck."""

    fault: Fault
    id: str
    ordered: float
    passed: int = 0
    hits: int = 0

    def is_active(self) -> bool:
        """Whether it may still strike."""
        spent = self.fault.times is not None and self.hits >= self.fault.times
        late = self.fault.seconds is not None and time.monotonic() - self.ordered >= self.fault.seconds
        return not spent and not late

    def concerns(self, on: str, subject: str, ready: bool) -> bool:
        """Whether a request is of the kind it was ordered for."""
        fault = self.fault
        if on == "poll" and fault.replaces("sample") and fault.status is None and not ready:
            return False
        return fault.on in (on, "any") and fault.match in subject


class FaultBook:
    """All the standing faults, in the order they came."""

    def __init__(self) -> None:
        self.standing: list[Standing] = []

    def add(self, fault: Fault) -> str:
        """Order a fault; returns its id."""
        self.standing.append(Standing(fault, uuid4().hex[:8], time.monotonic()))
        return self.standing[-1].id

    def pick(self, on: str, subject: str = "", ready: bool = False) -> Fault | None:
        """The fault that strikes this request, which is counted, or None.

        :param subject: the job's prompt and model.
        :param ready: whether a poll would find its job ready.
        """
        for standing in self.standing:
            if not standing.is_active() or not standing.concerns(on, subject, ready):
                continue
            if standing.passed < standing.fault.after:
                standing.passed += 1
                continue
            standing.hits += 1
            return standing.fault
        return None

    def listing(self) -> list[dict[str, Any]]:
        """Every fault as it was ordered, with id, hits and whether it is still active."""
        return [
            {
                "id": standing.id,
                "hits": standing.hits,
                "active": standing.is_active(),
                "fault": standing.fault.model_dump(by_alias=True, exclude_unset=True),
            }
            for standing in self.standing
        ]
