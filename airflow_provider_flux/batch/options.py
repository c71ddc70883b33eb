"""The options of a batch: what its author chose for all requests, read and checked before anything is billed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from airflow_provider_flux.arguments import parse_bytes, parse_count, parse_credits, parse_seconds
from airflow_provider_flux.receipts.submission import check_policies

T = TypeVar("T")


@dataclass(frozen=True)
class BatchOptions:
    """What the author chose for a whole batch; see FluxGenerateBatchOperator for the meanings."""

    max_active: int
    max_failures: int | None
    max_cost: float | None
    on_max_cost: str
    timeout: float
    poll_interval: float | None
    max_bytes: int
    strict: bool
    reuse: str
    on_orphan: str
    on_expired: str
    on_moderated: str
    moderation_retries: int
    replace: bool
    aws_conn_id: str | None


def read_options(given: Mapping[str, Any]) -> BatchOptions:
    """Return the options that an author wrote or a template rendered.

    :param given: A value for each field of BatchOptions.
    :raises FluxBadRequestError: if a value is invalid.
    """
    policies = {name: given[name] for name in ("reuse", "on_orphan", "on_expired", "on_moderated", "on_max_cost")}
    check_policies(**policies)
    return BatchOptions(
        max_active=parse_count("max_active", given["max_active"], minimum=1),
        max_failures=_optional(parse_count, "max_failures", given),
        max_cost=_optional(parse_credits, "max_cost", given),
        timeout=parse_seconds("timeout", given["timeout"]),
        poll_interval=_optional(lambda name, value: parse_seconds(name, value, minimum=0.1), "poll_interval", given),
        max_bytes=parse_bytes("max_bytes", given["max_bytes"]),
        moderation_retries=parse_count("moderation_retries", given["moderation_retries"]),
        strict=given["strict"],
        replace=given["replace"],
        aws_conn_id=given["aws_conn_id"],
        **policies,
    )


def _optional(parse: Callable[[str, Any], T], name: str, given: Mapping[str, Any]) -> T | None:
    return None if given[name] is None else parse(name, given[name])
