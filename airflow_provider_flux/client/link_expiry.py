"""When the signed URL of an image expires, according to the URL itself. Pure."""

from __future__ import annotations

import datetime
from urllib.parse import parse_qsl, urlsplit

DEFAULT_LIFETIME = 600.0
"""Seconds from when a job is ready until its URL expires, if the URL does not say."""
_MAX_UNIX_TIME = 4_102_444_800.0
"""The year 2100: a larger number is not a time in seconds."""


def link_expiry(url: str) -> float | None:
    """Return the Unix time in seconds at which a signed URL expires; None if it does not say.

    Reads ``se`` (Azure: ISO 8601; as a number: Unix time), ``Expires`` (Unix time), and ``X-Amz-Date`` or
    ``X-Goog-Date`` with ``X-Amz-Expires`` or ``X-Goog-Expires`` (seconds after that date).
    """
    try:
        query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    except ValueError:
        return None
    for cloud in ("amz", "goog"):
        signed_at, lifetime = _unix_time(query.get(f"x-{cloud}-date")), _number(query.get(f"x-{cloud}-expires"))
        if signed_at is not None and lifetime is not None:
            return signed_at + lifetime
    for name in ("se", "expires"):
        if (expiry := _unix_time(query.get(name))) is not None:
            return expiry
    return None


def expiry_note(url: str | None, ready_at: float) -> str:
    """Return the sentence that says when the image's URL expires.

    :param url: The signed URL; None if it is unknown.
    :param ready_at: Unix time in seconds at which the job became ready, for a URL that does not say.
    """
    expiry = None if url is None else link_expiry(url)
    about = "" if expiry is not None else "about "
    expires = datetime.datetime.fromtimestamp(ready_at + DEFAULT_LIFETIME if expiry is None else expiry, datetime.UTC)
    return f"The image's URL expires at {about}{expires:%Y-%m-%d %H:%M:%S} UTC."


def _unix_time(text: str | None) -> float | None:
    """Parse ISO 8601, also without separators (``20260928T101500Z``), or Unix time; UTC if it has no time zone."""
    if text is None:
        return None
    if (number := _number(text)) is not None:
        return number
    try:
        parsed = datetime.datetime.fromisoformat(text)
        zoned = parsed if parsed.tzinfo else parsed.replace(tzinfo=datetime.UTC)
        return zoned.timestamp()
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number < _MAX_UNIX_TIME else None
