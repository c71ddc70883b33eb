"""How long the signed link to an image lives, as the link itself says. Pure."""

from __future__ import annotations

import datetime
from urllib.parse import parse_qsl, urlsplit

LIFE = 600.0
"""Seconds that a link lives after its job became ready, where the link does not say."""
_LATEST = 4_102_444_800.0
"""The year 2100: a number beyond it is no time in seconds."""


def link_expiry(url: str) -> float | None:
    """Return the Unix time in seconds at which a signed link dies; None if it does not say.

    Reads ``se`` (Azure: ISO 8601; as a number: Unix time), ``Expires`` (Unix time), and ``X-Amz-Date`` or
    ``X-Goog-Date`` with ``X-Amz-Expires`` or ``X-Goog-Expires`` (seconds from then).
    """
    try:
        query = {name.lower(): value for name, value in parse_qsl(urlsplit(url).query)}
    except ValueError:
        return None
    for cloud in ("amz", "goog"):
        signed, life = _moment(query.get(f"x-{cloud}-date")), _number(query.get(f"x-{cloud}-expires"))
        if signed is not None and life is not None:
            return signed + life
    for name in ("se", "expires"):
        if (moment := _moment(query.get(name))) is not None:
            return moment
    return None


def link_life(url: str | None, ready_at: float) -> str:
    """Return the sentence that says until when the image can still be fetched.

    :param url: The signed link; None if it is not known.
    :param ready_at: Unix time in seconds at which its job became ready, for a link that does not say.
    """
    expiry = None if url is None else link_expiry(url)
    about = "" if expiry is not None else "about "
    moment = datetime.datetime.fromtimestamp(ready_at + LIFE if expiry is None else expiry, datetime.UTC)
    return f"The link to the image lives until {about}{moment:%Y-%m-%d %H:%M:%S} UTC."


def _moment(text: str | None) -> float | None:
    """Read ISO 8601, also without separators (``20260928T101500Z``), or Unix time; a time without a zone is UTC."""
    if text is None:
        return None
    if (number := _number(text)) is not None:
        return number
    try:
        moment = datetime.datetime.fromisoformat(text)
        zoned = moment if moment.tzinfo else moment.replace(tzinfo=datetime.UTC)
        return zoned.timestamp()
    except (ValueError, OverflowError):
        return None


def _number(text: str | None) -> float | None:
    try:
        number = float(text or "")
    except ValueError:
        return None
    return number if 0 < number < _LATEST else None
