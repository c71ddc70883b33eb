"""Run an operator without a scheduler: execute it, and carry a deferral through its trigger by hand."""

from __future__ import annotations

import asyncio
import json
from types import SimpleNamespace
from typing import Any

from airflow.providers.common.compat.sdk import TaskDeferred
from airflow.triggers.base import BaseTrigger


def context(map_index: int = -1) -> Any:
    return {"ti": SimpleNamespace(map_index=map_index)}


def fire(trigger: BaseTrigger) -> dict[str, Any]:
    """Run a trigger as the triggerer would: from what was stored of it, to the payload that is stored."""
    path, kwargs = trigger.serialize()
    assert path == f"{type(trigger).__module__}.{type(trigger).__name__}"
    revived = type(trigger)(**json.loads(json.dumps(kwargs)))

    async def first() -> Any:
        events = [event async for event in revived.run()]
        assert len(events) == 1
        return events[0].payload

    event: dict[str, Any] = json.loads(json.dumps(asyncio.run(first())))
    assert not [value for value in event.values() if isinstance(value, (dict, list))], "the event is flat"
    return event


def run(operator: Any, map_index: int = -1) -> tuple[dict[str, Any], bool]:
    """Return what the operator returned, and whether it was deferred on the way."""
    try:
        return operator.execute(context(map_index)), False
    except TaskDeferred as deferral:
        method = getattr(operator, deferral.method_name)
        return method(context(map_index), event=fire(deferral.trigger)), True
