"""Keeps the HTTP library from logging the client's requests: a line for each poll, and signed URLs in clear text."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from contextvars import ContextVar

_is_own_request: ContextVar[bool] = ContextVar("flux_request", default=False)


class _OwnRequestFilter(logging.Filter):
    """Drops records of the client's own requests; those of other users of the library are still logged."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not _is_own_request.get()


for _name in ("httpx", "httpcore.connection", "httpcore.http11", "httpcore.proxy"):
    logging.getLogger(_name).addFilter(_OwnRequestFilter())


@contextlib.contextmanager
def requests_not_logged() -> Iterator[None]:
    """Keep the requests of the block out of the HTTP library's log."""
    token = _is_own_request.set(True)
    try:
        yield
    finally:
        _is_own_request.reset(token)
