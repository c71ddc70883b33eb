"""Run an operator without a scheduler: execute it, and carry a deferral through its trigger by hand."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.triggers.base import BaseTrigger


class TaskState:
    """Airflow 3.3's task state store, in memory."""

    def __init__(self) -> None:
        self.stored: dict[str, str] = {}

    def get(self, key: str) -> Any:
        return json.loads(self.stored[key]) if key in self.stored else None

    def set(self, key: str, value: Any, *, retention: object) -> None:
        self.stored[key] = json.dumps(value)


def context(map_index: int = -1, run_id: str = "run-1", state: TaskState | None = None) -> Any:
    pushed: dict[str, Any] = {}
    ti = SimpleNamespace(dag_id="dag", task_id="generate", run_id=run_id, map_index=map_index, pushed=pushed)
    ti.xcom_push = lambda key, value: pushed.__setitem__(key, value)
    return {"ti": ti, **({"task_state_store": state} if state is not None else {})}


def fire(trigger: BaseTrigger) -> dict[str, Any]:
    """Run a trigger as the triggerer would: from what was stored of it, to the payload that is stored."""
    path, kwargs = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    event: dict[str, Any] = fire_payload(type(trigger)(**json.loads(json.dumps(kwargs))))
    nested = [name for name, value in (event or {}).items() if isinstance(value, (dict, list))]
    assert not nested, "the event is flat"
    return event


def fire_payload(trigger: BaseTrigger) -> Any:
    """Return the payload of the trigger's one event, as Airflow's database has it."""

    async def first() -> Any:
        events = [event async for event in trigger.run()]
        assert len(events) == 1
        return events[0].payload

    return json.loads(json.dumps(asyncio.run(first())))


def resumed_with(deferral: TaskDeferred) -> dict[str, Any]:
    """Fire the trigger of a deferral; return the arguments with which Airflow resumes the task."""
    kwargs: dict[str, Any] = json.loads(json.dumps(deferral.kwargs or {}))
    return {**kwargs, "event": fire(deferral.trigger)}


def run(operator: Any, map_index: int = -1, **about: Any) -> tuple[dict[str, Any], bool]:
    """Return what the operator returned, and whether it was deferred on the way."""
    event: dict[str, Any] = {}
    method, deferred = operator.execute, False
    while True:
        try:
            return method(context(map_index, **about), **event), deferred
        except TaskDeferred as deferral:
            method, event = getattr(operator, deferral.method_name), resumed_with(deferral)
            deferred = True
