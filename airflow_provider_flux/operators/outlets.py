"""Tell what a task made to Airflow's assets and to OpenLineage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context


def tell_outlets(operator: BaseOperator, context: Context, uri: str | None, told: dict[str, Any]) -> None:
    """Give the task's outlets what it made, as ``extra`` of their events.

    An asset gets ``told``; an asset alias also learns the asset at ``uri``, so that DAGs scheduled on it start.

    :param uri: Where it lies; None: nowhere, and no alias is told.
    :param told: Flat JSON.
    """
    events: Any = context.get("outlet_events")
    if events is None or not operator.outlets:
        return
    from airflow.sdk import Asset, AssetAlias
    from airflow.sdk.definitions.asset import AssetRef

    for outlet in operator.outlets:
        if isinstance(outlet, AssetAlias):
            if uri:
                events[outlet].add(Asset(uri), extra=told)
        elif isinstance(outlet, (Asset, AssetRef)):
            events[outlet].extra = told


def lineage_of(uris: list[str]) -> Any:
    """Return OpenLineage's facets of a task that wrote ``uris``."""
    from airflow.providers.common.compat.openlineage.facet import Dataset
    from airflow.providers.openlineage.extractors import OperatorLineage

    return OperatorLineage(outputs=[Dataset(*_dataset(uri)) for uri in uris])


def _dataset(uri: str) -> tuple[str, str]:
    """Return namespace and name of the dataset at ``uri``, as OpenLineage's naming conventions have it."""
    parts = urlsplit(uri)
    if parts.scheme in ("", "file", "local"):
        return "file", parts.path
    rest = uri.split("://", 1)[1].partition("/")[2]
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", rest
