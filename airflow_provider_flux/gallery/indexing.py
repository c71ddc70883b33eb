"""Keeping the image index up to date with Airflow's database, within the time that a request may take.

A pass compares each run's version with the index, reads the runs that differ, newest first, then the receipts of images
whose prompt is unknown. It runs in a thread of its own, which a request waits for only briefly: what is left continues
in the background. Several API server processes may do so at once, since each writes the same.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass

from airflow_provider_flux.gallery import contents, index_file, queries, reading
from airflow_provider_flux.gallery.index_file import ReceiptFacts
from airflow_provider_flux.gallery.queries import RunVersion, Selection
from airflow_provider_flux.receipts.receipt import Receipt

log = logging.getLogger(__name__)

BUDGET_SECONDS = 0.5
"""How long a request waits for the index."""
CHECK_SECONDS = 2.0
"""How old the index may be: after it, a request looks for new runs, and for changes of those that have not ended."""
FULL_CHECK_SECONDS = 60.0
"""After it, a request looks for changes of all runs, such as those that were deleted."""
_RECEIPTS_AT_ONCE = 16
_RETRY_SECONDS = 600.0
"""After it, what could not be read is read again: a manifest, a result, a receipt."""


# Set before Airflow closes its database, which registered for the process's end earlier.
_process_ends = threading.Event()
atexit.register(_process_ends.set)


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the index is.

    :param done: Number of runs that are up to date in it.
    :param total: Number of runs that used FLUX.
    """

    done: int
    total: int

    @property
    def is_complete(self) -> bool:
        """Whether every run is up to date in the index."""
        return self.done >= self.total


class Background:
    """A thread that runs one function at a time, and does not keep the process from ending."""

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None

    def start(self, function: Callable[[], None]) -> bool:
        """Start the function, unless the last one is still running; return whether it was started."""
        if self._thread is not None and self._thread.is_alive():
            return False
        self._thread = threading.Thread(target=self._run, args=[function], name="flux-index", daemon=True)
        self._thread.start()
        return True

    def join(self, timeout: float) -> None:
        """Wait for the function, for at most so many seconds."""
        if self._thread is not None:
            self._thread.join(timeout)

    def _run(self, function: Callable[[], None]) -> None:
        try:
            function()
        except Exception as error:
            if _is_of_the_end(error):
                log.debug("The process is ending; the next one goes on with the index.")
            else:
                log.exception("The gallery could not bring its index up to date.")


class Indexer:
    """Brings the index up to date, one pass at a time."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._runs, self._receipts = Background(), Background()
        self._last_check = float("-inf")
        # Not complete before the first pass has counted the runs.
        self._progress = Progress(0, 1)

    def refresh(self, budget: float) -> Progress:
        """Bring the index up to date as far as possible in ``budget`` seconds; the rest continues in the background."""
        with self._lock:
            if time.monotonic() - self._last_check > CHECK_SECONDS and self._runs.start(self._run_pass):
                self._last_check = time.monotonic()
        self._runs.join(budget)
        return self._progress

    def _run_pass(self) -> None:
        self.update_runs()
        # Not in this thread, which the next requests wait for.
        self._receipts.start(update_receipts)

    def update_runs(self, *, is_full: bool = False) -> None:
        """Read each run that differs from the index, and remove those that are gone.

        :param is_full: Whether to compare all runs, even if that was done a moment ago.
        """
        with index_file.connect() as connection:
            age = time.time() - index_file.read_fact(connection, "full_check")
            newest = int(index_file.read_fact(connection, "newest_dag_run"))
            unfinished = index_file.unfinished_runs(connection)
            known = index_file.read_versions(connection, time.time())
        newest_now = queries.newest_dag_run_id()
        # A smaller number than before: the database was reset.
        is_full = is_full or not 0 <= age < FULL_CHECK_SECONDS or newest_now < newest
        if is_full:
            runs = queries.run_versions()
            gone = known.keys() - {(run.dag_id, run.run_id) for run in runs}
        else:
            runs = queries.run_versions({*queries.active_dag_run_ids(newest), *unfinished})
            gone = set(unfinished.values()) - {(run.dag_id, run.run_id) for run in runs}
        changed = [run for run in runs if known.get((run.dag_id, run.run_id)) != run.version]
        total = len(known.keys() - gone | {(run.dag_id, run.run_id) for run in runs})
        self._progress = Progress(total - len(changed), total)
        with index_file.connect() as connection:
            index_file.remove_runs(connection, gone)
        for number, run in enumerate(changed, 1):
            _index_run(run)
            self._progress = Progress(total - len(changed) + number, total)
        with index_file.connect() as connection:
            # Only now: a pass that is cut off must not hide what it has not read.
            index_file.write_fact(connection, "newest_dag_run", newest_now)
            if is_full:
                index_file.write_fact(connection, "full_check", time.time())


def _index_run(run: RunVersion) -> None:
    try:
        found = asyncio.run(contents.load(Selection(run.dag_id, run.run_id)))
        images, is_complete = found.images, found.is_complete
    except Exception as error:
        if _is_of_the_end(error):
            raise
        # One odd run must not hide the others; its page shows the error.
        log.exception("The gallery could not index run %r of DAG %r.", run.run_id, run.dag_id)
        images, is_complete = [], False
    with index_file.connect() as connection:
        index_file.replace_run(connection, run, images, None if is_complete else time.time() + _RETRY_SECONDS)


def _is_of_the_end(error: Exception) -> bool:
    """Return whether the cause of an error is that the process ends, and takes away what this thread needs."""
    return isinstance(error, reading.ShutdownError) or _process_ends.is_set()


def update_receipts() -> None:
    """Read the receipts of images whose prompt is unknown, a few at a time."""
    while True:
        with index_file.connect() as connection:
            images = index_file.images_without_receipt(connection, _RECEIPTS_AT_ONCE, time.time() - _RETRY_SECONDS)
        if not images:
            return
        calls = {reading.submit_to_pool(reading.read_image_receipt, image): image for image in images}
        wait(calls, timeout=reading.TIMEOUT_SECONDS)
        with index_file.connect() as connection:
            for call, image in calls.items():
                index_file.write_receipt(connection, image, _facts(call), time.time())


def _facts(call: Future[Receipt | None]) -> ReceiptFacts:
    if not call.done() or call.exception() is not None:
        return ReceiptFacts(None, None, is_final=False)
    receipt = call.result()
    if receipt is None:
        return ReceiptFacts(None, None, is_final=True)
    prompt = (receipt.parameters or {}).get("prompt")
    cost = None if receipt.job is None else receipt.job.cost
    return ReceiptFacts(prompt if isinstance(prompt, str) else None, cost, is_final=True)


_indexer = Indexer()


def refresh(budget: float = BUDGET_SECONDS) -> Progress:
    """Bring the index up to date as far as possible in ``budget`` seconds."""
    return _indexer.refresh(budget)
