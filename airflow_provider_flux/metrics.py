"""What the operators count in Airflow's metrics (StatsD or OpenTelemetry, as Airflow is configured).

Each name is tagged with ``model`` and ``gateway``; without tags, as with plain StatsD, it is the name alone.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.best_effort import best_effort
from airflow_provider_flux.client.jobs import unix_time

if TYPE_CHECKING:
    from airflow_provider_flux.hooks.flux import FluxHook

_guarded = best_effort("emit metrics")


def tags(model: str, gateway: str) -> dict[str, str]:
    """Return the tags of a metric."""
    return {"model": model, "gateway": gateway}


def tags_of(model: Any, hook: FluxHook) -> dict[str, str]:
    """Return the tags of what is asked through ``hook``, also where its connection cannot be used."""
    try:
        gateway = hook.endpoint.gateway
    except Exception:  # whatever it is, it is not to hide what is being counted
        gateway = "unknown"
    return tags(str(model or "unknown"), gateway)


@_guarded
def submitted(tags: dict[str, str]) -> None:
    """Count a job that was accepted: ``flux.submitted``."""
    _stats().incr("flux.submitted", tags=tags)


@_guarded
def reused(tags: dict[str, str]) -> None:
    """Count an image that was paid for before: ``flux.reused``."""
    _stats().incr("flux.reused", tags=tags)


@_guarded
def ready(told: dict[str, Any], tags: dict[str, str]) -> None:
    """Count an image that is there, as its task tells of it.

    ``flux.ready``; ``flux.cost`` in credits, as far as the API told; ``flux.duration``: how long the API worked;
    ``flux.wait``: from the submit to now.
    """
    stats = _stats()
    stats.incr("flux.ready", tags=tags)
    if told.get("cost"):
        stats.incr("flux.cost", told["cost"], tags=tags)
    if told.get("duration") is not None:
        stats.timing("flux.duration", timedelta(seconds=told["duration"]), tags=tags)
    if (submitted_at := unix_time(told.get("submitted_at"))) is not None:
        stats.timing("flux.wait", timedelta(seconds=max(0.0, time.time() - submitted_at)), tags=tags)


@_guarded
def failed(reason: str, tags: dict[str, str]) -> None:
    """Count a try that ended without an image: ``flux.failed``, tagged with the error's class as ``reason``."""
    _stats().incr("flux.failed", tags={**tags, "reason": reason})


def _stats() -> Any:
    try:
        from airflow.providers.common.compat.sdk import Stats
    except ImportError:
        from airflow.stats import Stats  # before Airflow 3.2
    return Stats
