"""What of a request may be shown: in receipts, manifests and Airflow's UI. Never a secret, never an image's bytes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_flux.arguments import parse_structure

LONGEST_PROMPT = 200_000
"""Characters of a prompt that a receipt shows; a longer one is replaced by its hash."""

HIDDEN = "***"
"""Stands for a secret, as in Airflow's own masking."""
_SECRET = ("secret", "passw", "passphrase", "token", "api_key", "apikey", "authorization", "private_key", "access_key")


def redact(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request's fields as a receipt may show them: small, no secret, of a URL its host and its hash."""
    return {
        name: value if name == "prompt" and len(str(value)) <= LONGEST_PROMPT else _shown(value)
        for name, value in request.items()
        if not is_secret(name)
    }


def shown_prompt(request: Mapping[str, Any]) -> str | None:
    """Return the prompt of a request as a manifest or a result shows it; None if it has none."""
    prompt = redact({"prompt": request.get("prompt")})["prompt"]
    return None if prompt is None else str(prompt)


def _shown(value: Any) -> Any:
    if isinstance(value, Mapping):
        return redact(value)
    if isinstance(value, list | tuple):
        return [_shown(item) for item in value]
    if not isinstance(value, str):
        return value
    if (known := redact_secrets(value)) is not value:
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
    """Find what :func:`redact_secrets` hides."""
    if name is not None and is_secret(name):
        if value not in (None, ""):
            yield value
        return
    if isinstance(value, str) and name != "prompt":
        value = parse_structure(value)
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from secrets_in(item, key)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from secrets_in(item)


def redact_secrets(value: Any, name: Any = None) -> Any:
    """Return a value with ``HIDDEN`` in place of each secret, recognised by its key; also within JSON text."""
    if not any(True for _ in secrets_in(value, name)):
        return value
    if name is not None and is_secret(name):
        return HIDDEN
    if isinstance(value, str):
        value = parse_structure(value)
    if isinstance(value, Mapping):
        return {key: redact_secrets(item, key) for key, item in value.items()}
    return [redact_secrets(item) for item in value]
