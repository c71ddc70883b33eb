"""What a batch does at the same time, and what bounds each part of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar, TypeVarTuple

T = TypeVar("T")
Arguments = TypeVarTuple("Arguments")

RECEIPT_READS = 8
"""Threads that read receipts."""
SUBMITS = 4
"""Threads that prepare and send requests."""
CAPTURES = 4
"""Threads that download, verify and store images."""


@dataclass(frozen=True)
class Concurrency:
    """The thread pools and semaphores of one attempt of a batch.

    Blocking calls (stores, the submit) run in threads; jobs are polled on the event loop.

    =========================  ===================================  ==================================================
    what                       is bounded by                        because
    =========================  ===================================  ==================================================
    reads of receipts          ``receipt_reads``: 8 threads         all pools together stay below the connections that
                                                                    an S3 client keeps
    submits                    ``submits``: 4 threads               a request with its input images may take 100 MB
    requests that wait for     ``submit_turns``: 4                  the same; and a request that is refused (HTTP 429)
    capacity or their price                                         stays in front of those that have not been sent
    jobs in flight             ``AdaptiveLimiter``: ``max_active``  the account has a limit, which is unknown; HTTP 429
                                                                    lowers the number
    downloads and stores       ``captures``: 4 threads              decoding an image takes memory
    finished jobs that are     ``store_backlog``: 2 x               download URLs expire after about ten minutes: if
    not stored                 ``max_active``                       the store is slow, fewer jobs are submitted
    cost                       ``Budget``: ``max_cost``             the author's decision
    =========================  ===================================  ==================================================

    Pools of ``max_active`` threads take as much CPU and store no more images a second from a store nearby; 24 requests
    with input images at once take gigabytes.
    """

    receipt_reads: ThreadPoolExecutor
    submits: ThreadPoolExecutor
    captures: ThreadPoolExecutor
    submit_turns: asyncio.Semaphore
    store_backlog: asyncio.Semaphore

    @classmethod
    def create(cls, max_active: int) -> Concurrency:
        """Return new pools and semaphores, for the running event loop.

        :param max_active: Maximum number of jobs in flight.
        """
        return cls(
            receipt_reads=ThreadPoolExecutor(RECEIPT_READS, "flux-receipts"),
            submits=ThreadPoolExecutor(SUBMITS, "flux-submit"),
            captures=ThreadPoolExecutor(CAPTURES, "flux-capture"),
            submit_turns=asyncio.Semaphore(SUBMITS),
            store_backlog=asyncio.Semaphore(2 * max_active),
        )

    def shut_down(self, wait_for_captures: bool) -> None:
        """Cancel what has not begun, and wait for the threads.

        A submit that has begun always completes, so that its response is recorded in the receipt.

        :param wait_for_captures: Whether to wait for images that are being stored. If the task is interrupted, that
            would take too long; the next attempt stores them.
        """
        self.submits.shutdown(cancel_futures=True)
        self.receipt_reads.shutdown(cancel_futures=True)
        self.captures.shutdown(wait=wait_for_captures, cancel_futures=True)


async def run_in_pool(pool: ThreadPoolExecutor, function: Callable[[*Arguments], T], *arguments: *Arguments) -> T:
    """Call a blocking function in a thread of the pool and return its result."""
    return await asyncio.get_running_loop().run_in_executor(pool, function, *arguments)
