"""What is only said about an image (events, lineage, metrics, links) must not fail the task that paid for it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator

log = logging.getLogger(__name__)


@contextlib.contextmanager
def best_effort(what: str) -> Iterator[None]:
    """Log an error of the block as a warning, and go on.

    :param what: What the block does, for the log: ``"emit metrics"``.
    """
    try:
        yield
    except Exception as error:
        log.warning("Could not %s (%s: %s); the task goes on.", what, type(error).__name__, error)
