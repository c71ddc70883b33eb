"""What was asked and what came of it, in words: the recipe's fingerprint, a file name, the task's result."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from airflow_provider_flux.arguments import structure
from airflow_provider_flux.client.jobs import Job, iso_time

if TYPE_CHECKING:
    from airflow_provider_flux.client.answers import Result

LONGEST_PROMPT = 200_000
"""Characters of a prompt that a receipt shows; of a longer one it has the hash."""

# They change who hears of the image, not the image.
_NOT_THE_IMAGE = ("webhook_url", "webhook_secret")

HIDDEN = "***"
"""Stands for a secret, as Airflow writes it."""
_SECRET = ("secret", "passw", "passphrase", "token", "api_key", "apikey", "authorization", "private_key", "access_key")


def fingerprint(model: str, request: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of everything that makes the image: the model and its parameters."""
    recipe = {name: value for name, value in request.items() if name not in _NOT_THE_IMAGE}
    text = json.dumps([model, recipe], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def image_name(task_id: str, map_index: int | None, model: str, request: Mapping[str, Any]) -> str:
    """Return a file name that is the same for each try of a task and differs between recipes."""
    from airflow_provider_flux.client.models import output_format

    index = [] if map_index is None or map_index < 0 else [str(map_index)]
    stem = "-".join([task_id[:150], *index, fingerprint(model, request)[:12]])
    return f"{stem}.{output_format(model, request)}"


def describe(result: Result) -> dict[str, Any]:
    """Return what a task tells of a finished job: flat JSON, nothing secret."""
    return {
        **describe_job(result.job),
        "status": result.status,
        "seed": result.seed,
        "cost": result.cost if result.cost is not None else result.job.cost,
        "duration": result.duration,
    }


def describe_job(job: Job) -> dict[str, Any]:
    """Return what a task tells of a job that it did not wait for."""
    told = {**job.to_dict(), "submitted_at": iso_time(job.submitted_at), "status": "Pending"}
    if told["polling_url"] is None:
        del told["polling_url"]
    return told


def describe_reused(
    image: Mapping[str, Any], run: Mapping[str, Any], paid_by: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return what a task returns of an image that was paid for before.

    :param image: What was returned of it then.
    :param run: The task that runs.
    :param paid_by: The task that paid for the image, if that is another one: this one then pays nothing for it.
    """
    if paid_by is None:
        return {**image, "reused": True, "paid_by": dict(run)}
    return {**image, "cost": 0, "reused": True, "paid_by": dict(paid_by)}


def with_unused(image: dict[str, Any], cost: float) -> dict[str, Any]:
    """Return the description of an image for which further jobs are billed that are not used.

    :param cost: Credits of those jobs.
    """
    return {**image, "cost": (image.get("cost") or 0) + cost} if cost else image


def public(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's fields as a receipt may show them: small, no secret, of a URL its host and its hash."""
    return {
        name: value if name == "prompt" and len(str(value)) <= LONGEST_PROMPT else _shown(value)
        for name, value in request.items()
        if not is_secret(name)
    }


def shown_prompt(request: Mapping[str, Any]) -> str | None:
    """Return the prompt of a request as a manifest or a result shows it; None if it has none."""
    prompt = public({"prompt": request.get("prompt")})["prompt"]
    return None if prompt is None else str(prompt)


def _shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return public(value)
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    if not isinstance(value, str):
        return value
    if (known := without_secrets(value)) is not value:
        return _shown(known)
    digest = f"sha256:{hashlib.sha256(value.encode(errors='replace')).hexdigest()}"
    if "://" in value:
        # The user, the path and the query can each be a key.
        return f"{_host(value)}...{digest}"
    # An image as base64, in a field that is not known here.
    return value if len(value) <= 4096 else digest


def _host(url: str) -> str:
    """Return scheme and host of a text that is one URL; nothing of any other text that has one in it."""
    try:
        parts = urlsplit(url.strip())
        host, port = parts.hostname, parts.port
    except ValueError:
        return ""
    if not parts.scheme or not host or any(character.isspace() for character in url.strip()):
        return ""
    return f"{parts.scheme}://{host}{'' if port is None else f':{port}'}/"


def is_secret(name: Any) -> bool:
    """Return whether a value under this name is not to be shown."""
    return any(word in str(name).lower() for word in _SECRET)


def secrets_in(value: Any, name: Any = None) -> Iterator[Any]:
    """Find what :func:`without_secrets` hides."""
    if name is not None and is_secret(name):
        if value not in (None, ""):
            yield value
        return
    if isinstance(value, str) and name != "prompt":
        value = structure(value)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in(item, key)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_in(item)


def without_secrets(value: Any, name: Any = None) -> Any:
    """Return a value with ``HIDDEN`` in place of each secret, which its name in a dict tells; also in JSON as text."""
    if not any(True for _ in secrets_in(value, name)):
        return value
    if name is not None and is_secret(name):
        return HIDDEN
    if isinstance(value, str):
        value = structure(value)
    if isinstance(value, Mapping):
        return {key: without_secrets(item, key) for key, item in value.items()}
    return [without_secrets(item) for item in value]


def shareable(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's fields that make the image, as one may pass them on."""
    return {name: value for name, value in request.items() if name not in _NOT_THE_IMAGE}
