"""All registered faults, and which of them applies to a request."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any
from uuid import uuid4

from airflow_provider_flux.emulator.faults import Fault


@dataclass
class RegisteredFault:
    """A fault with its counters.

    :param passed: how many matching requests it has let through, see `Fault.after`.
    :param hits: how many requests it has been applied to.
    """

    fault: Fault
    id: str = field(default_factory=lambda: uuid4().hex[:8])
    registered_at: float = field(default_factory=time.monotonic)
    passed: int = 0
    hits: int = 0

    def is_active(self) -> bool:
        """Whether it can still be applied."""
        spent = self.fault.times is not None and self.hits >= self.fault.times
        expired = self.fault.seconds is not None and time.monotonic() - self.registered_at >= self.fault.seconds
        return not spent and not expired

    def matches(self, on: str, subject: str, ready: bool) -> bool:
        """Whether it applies to this kind of request."""
        fault = self.fault
        if on == "poll" and fault.replaces("sample") and fault.status is None and not ready:
            return False
        return fault.on in (on, "any") and fault.match in subject


class FaultRegistry:
    """All faults, in the order in which they were added."""

    def __init__(self) -> None:
        self._faults: list[RegisteredFault] = []

    def add(self, fault: Fault) -> str:
        """Register a fault and return its id."""
        self._faults.append(RegisteredFault(fault))
        return self._faults[-1].id

    def clear(self) -> int:
        """Delete all faults and return their number."""
        count = len(self._faults)
        self._faults.clear()
        return count

    def select(self, on: str, subject: str = "", ready: bool = False) -> Fault | None:
        """Return the fault that applies to this request, or None. The hit is counted.

        :param on: the kind of request, see `Fault.on`.
        :param subject: the job's prompt and model.
        :param ready: whether the polled job is ready.
        """
        for registered in self._faults:
            if not registered.is_active() or not registered.matches(on, subject, ready):
                continue
            if registered.passed < registered.fault.after:
                registered.passed += 1
                continue
            registered.hits += 1
            return registered.fault
        return None

    def to_list(self) -> list[dict[str, Any]]:
        """Return each fault as it was added, with its id, its hits and whether it is still active."""
        return [
            {
                "id": registered.id,
                "hits": registered.hits,
                "active": registered.is_active(),
                "fault": registered.fault.model_dump(by_alias=True, exclude_unset=True),
            }
            for registered in self._faults
        ]
