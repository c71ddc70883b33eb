"""The metrics that the operators emit through Airflow (to StatsD or OpenTelemetry, as Airflow is configured).

Each metric has the tags ``model``, ``gateway`` and ``dag_id``; plain StatsD ignores tags.
"""

from __future__ import annotations

import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from airflow_provider_flux.best_effort import best_effort

if TYPE_CHECKING:
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.results import ImageResult

_guarded = best_effort("emit metrics")


def tags(model: str, gateway: str, dag_id: str | None) -> dict[str, str]:
    """Return the tags of a metric.

    :param dag_id: The task's DAG; None outside of a task.
    """
    return {"model": model, "gateway": gateway, **({} if dag_id is None else {"dag_id": dag_id})}


def tags_of(model: Any, hook: FluxHook, dag_id: str | None) -> dict[str, str]:
    """Return the tags of a request through ``hook``, also if its connection cannot be used."""
    try:
        gateway = hook.endpoint.gateway
    except Exception:  # it must not hide what is counted
        gateway = "unknown"
    return tags(str(model or "unknown"), gateway, dag_id)


@_guarded
def submitted(tags: dict[str, str]) -> None:
    """Count a job that was accepted: ``flux.submitted``."""
    _stats().incr("flux.submitted", tags=tags)


@_guarded
def reused(tags: dict[str, str]) -> None:
    """Count an image that is reused: ``flux.reused``."""
    _stats().incr("flux.reused", tags=tags)


@_guarded
def ready(image: ImageResult, tags: dict[str, str]) -> None:
    """Count an image that is ready.

    ``flux.ready``; ``flux.cost`` in credits, as far as the API reports it; ``flux.duration``: generation time;
    ``flux.wait``: time from the submit until now.
    """
    stats = _stats()
    stats.incr("flux.ready", tags=tags)
    if image.cost:
        stats.incr("flux.cost", image.cost, tags=tags)
    if image.duration is not None:
        stats.timing("flux.duration", timedelta(seconds=image.duration), tags=tags)
    if (submitted_at := image.job.submitted_at) is not None:
        stats.timing("flux.wait", timedelta(seconds=max(0.0, time.time() - submitted_at)), tags=tags)


@_guarded
def failed(reason: str, tags: dict[str, str]) -> None:
    """Count an attempt that ended without an image: ``flux.failed``, with the error's class as the tag ``reason``."""
    _stats().incr("flux.failed", tags={**tags, "reason": reason})


def _stats() -> Any:
    try:
        from airflow.providers.common.compat.sdk import Stats
    except ImportError:
        from airflow.stats import Stats  # before Airflow 3.2
    return Stats
