"""One HTTP response of the API, independent of the HTTP library: what both clients pass on to be interpreted."""

from __future__ import annotations

import email.utils
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

MAX_RETRY_AFTER = 600.0
"""Longest delay in seconds that a Retry-After header can ask for."""
_MIN_MASKED_KEY_LENGTH = 5


@dataclass(frozen=True, slots=True)
class ApiResponse:
    """One HTTP response.

    :param status_code: The HTTP status code.
    :param body: The complete body.
    :param content_type: The Content-Type header; empty if there is none.
    :param retry_after: The Retry-After header in seconds; None if there is none.
    """

    status_code: int
    body: bytes
    content_type: str = ""
    retry_after: float | None = None

    @classmethod
    def from_http(cls, status_code: int, headers: Mapping[str, str], body: bytes, api_key: str) -> ApiResponse:
        """Return the response with the API key masked, since some servers quote the key that they refuse."""
        # A shorter text is not a key, and may be part of any word.
        is_maskable = len(api_key) >= _MIN_MASKED_KEY_LENGTH
        return cls(
            status_code=status_code,
            body=body.replace(api_key.encode(), b"***") if is_maskable else body,
            content_type=headers.get("content-type", ""),
            retry_after=parse_retry_after(headers.get("retry-after")),
        )

    @property
    def is_success(self) -> bool:
        """Whether the status code is 2xx."""
        return 200 <= self.status_code < 300

    @property
    def is_html(self) -> bool:
        """Whether the body is a web page."""
        return "html" in self.content_type.lower() or self.body.lstrip()[:1] == b"<"

    def json(self) -> Any:
        """Return the body parsed as JSON; None if it is not JSON."""
        try:
            value = json.loads(self.body)
            if self.body.isascii() and b"\\" not in self.body:
                return value
            # A lone surrogate, such as "\ud83d", is invalid both in a URL and in a log.
            return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))
        except (ValueError, RecursionError):
            return None


def parse_retry_after(header: str | None) -> float | None:
    """Return the seconds that a Retry-After header asks to wait, given as a number or a date; None if invalid."""
    if not header:
        return None
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return None
    return max(0.0, min(seconds, MAX_RETRY_AFTER)) if seconds == seconds else None
