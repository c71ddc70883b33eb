"""The recipe: everything that makes an image, which is the model and its parameters. Its fingerprint finds it again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_NOT_THE_IMAGE = ("webhook_url", "webhook_secret")
"""Fields that change who is notified of the image, not the image."""


def fingerprint(model: str, request: Mapping[str, Any]) -> str:
    """Return the SHA-256, in hex, of everything that makes the image: the model and its parameters."""
    recipe = {name: value for name, value in request.items() if name not in _NOT_THE_IMAGE}
    text = json.dumps([model, recipe], sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def derived_seed(*origin: object) -> int:
    """Return the seed, of 31 bits, that belongs to ``origin`` in every process and release."""
    digest = hashlib.sha256("/".join(map(str, origin)).encode()).digest()
    return int.from_bytes(digest[:4], "big") >> 1


def image_name(task_id: str, map_index: int | None, model: str, request: Mapping[str, Any]) -> str:
    """Return a file name that is the same for each try of a task and differs between recipes."""
    from airflow_provider_flux.client.catalogue.models import output_format

    index = [] if map_index is None or map_index < 0 else [str(map_index)]
    stem = "-".join([task_id[:150], *index, fingerprint(model, request)[:12]])
    return f"{stem}.{output_format(model, request)}"


def without_webhook(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's fields that make the image, as one may pass them on."""
    return {name: value for name, value in request.items() if name not in _NOT_THE_IMAGE}
