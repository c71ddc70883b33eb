"""Report what a task stored to Airflow's assets and to OpenLineage. Neither fails the task: the image is paid for."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow_provider_flux.best_effort import best_effort
from airflow_provider_flux.storage.uris import read_uri

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator, Context

_LONGEST = 1300
"""Characters of an asset's URI: Airflow accepts 1500, but its PostgreSQL index 2700 for name and URI together."""


def record_asset_events(operator: BaseOperator, context: Context, uri: str | None, details: dict[str, Any]) -> None:
    """Add what the task stored to the events of its asset outlets.

    An asset's event gets ``details`` as its ``extra``; an asset alias also gets the asset at ``uri``, so that DAGs
    scheduled on it start. What Airflow refuses is logged as a warning.

    :param uri: Where it is stored; None: nowhere, and aliases get no event.
    :param details: Flat JSON.
    """
    with best_effort("emit asset events"):
        events: Any = context.get("outlet_events")
        if events is None or not operator.outlets:
            return
        from airflow.sdk import Asset, AssetAlias
        from airflow.sdk.definitions.asset import AssetRef

        extra = _plain(details)
        for outlet in operator.outlets:
            with best_effort(f"emit the event of {outlet!r}"):
                if isinstance(outlet, AssetAlias):
                    if uri:
                        events[outlet].add(Asset(asset_uri(uri)), extra=extra)
                elif isinstance(outlet, (Asset, AssetRef)):
                    events[outlet].extra = extra


def asset_uri(uri: str) -> str:
    """Return the URI of the asset stored at ``uri``: unique for each place, and valid for Airflow.

    Airflow drops what looks like a fragment, sorts what looks like a query and, when the task has ended, fails it for
    a URI that is not ASCII. So what a URI's path cannot hold is percent-encoded, the percent sign too, and what is too
    long ends in a hash. The connection is left out: it is a way to the place, and no part of it.
    """
    place = read_uri(uri)
    scheme = f"{place.scheme}://" if place.scheme else ""
    encoded = scheme + "".join(
        quote(part, safe="/:@!$&'()*+,;=", errors="surrogatepass") for part in (place.host, place.path)
    )
    if len(encoded) <= _LONGEST:
        return encoded
    digest = hashlib.sha256(encoded.encode()).hexdigest()
    return re.sub("%.?$", "", encoded[: _LONGEST - len(digest) - 1]) + f"~{digest}"


def _plain(value: Any) -> Any:
    """Return JSON that Airflow's messages and its database accept, as close to ``value`` as possible.

    They refuse halves of characters, NUL, numbers that are infinite or do not fit into 64 bits, and other types, and
    fail the task for it when it has ended.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if -(2**63) <= value < 2**63 else str(value)
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {_plain(str(name)): _plain(item) for name, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value).replace("\0", "\ufffd").encode(errors="replace").decode()


def openlineage_outputs(uris: list[str]) -> Any:
    """Return OpenLineage's facets of a task that wrote ``uris``; None if they cannot be created."""
    with best_effort("make the OpenLineage facets"):
        from airflow.providers.common.compat.openlineage.facet import Dataset
        from airflow.providers.openlineage.extractors import OperatorLineage

        return OperatorLineage(outputs=[Dataset(*_dataset(uri)) for uri in uris])
    return None


def _dataset(uri: str) -> tuple[str, str]:
    """Return namespace and name of the dataset at ``uri``, as OpenLineage's naming conventions have it."""
    place = read_uri(uri)
    if place.scheme in ("", "file", "local"):
        return "file", place.path
    return f"{place.scheme}://{place.host}", place.key
