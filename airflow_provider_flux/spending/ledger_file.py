"""Where a ledger is stored: one JSON file in an object store, replaced only if no other process has replaced it.

Threads of one process share each write, so that a batch does not compete with itself.
"""

from __future__ import annotations

import json
import random
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from airflow_provider_flux.exceptions import FluxError, FluxStoreConfigurationError, FluxStoreError
from airflow_provider_flux.spending.ledger import MAX_BYTES, Ledger, read_ledger
from airflow_provider_flux.storage.base import ImageStore, Sidecar, SidecarConflictError

PATIENCE = 60.0
"""Seconds for which a change is attempted while other processes change the ledger, too."""
_MAX_FAILURES = 3
"""Consecutive failures of the store after which a change is given up."""
_LONGEST_PAUSE = 1.0
_NO_VERSION = '"00000000000000000000000000000000"'
"""A version (ETag) that no document has."""

Change = Callable[[Ledger], bool]
"""Changes a ledger, and returns whether there was anything to change; raises an error that refuses the change."""


@dataclass(slots=True, eq=False)
class _Pending:
    """A change that waits to be written.

    :param error: Why it is refused, or could not be written.
    """

    change: Change
    is_done: bool = False
    error: FluxError | None = None

    def apply(self, ledger: Ledger) -> bool:
        """Apply the change; return whether it changed anything."""
        self.error = None
        try:
            return self.change(ledger)
        except FluxError as refusal:
            self.error = refusal
            return False


class LedgerFile:
    """The file of one ledger.

    :param store: A store whose sidecar is the file.
    :param period: The name of the ledger's period.
    """

    def __init__(self, store: ImageStore, period: str) -> None:
        self.location = f"{store.uri}.json"
        self._store = store
        self._period = period
        self._queue: deque[_Pending] = deque()
        self._writing = threading.Lock()
        self._is_checked = False
        self._is_known = False
        """Whether the file as this process knows it may still be the stored one."""
        self._file: Sidecar | None = None

    def read(self) -> Ledger:
        """Return the ledger as it is stored; an empty one if there is none.

        :raises FluxBudgetError: if the file is not a readable ledger.
        :raises FluxStoreError: if it cannot be read.
        """
        found: list[Ledger] = []

        def look(ledger: Ledger) -> bool:
            found.append(ledger)
            return False

        self.change(look)
        return found[-1]

    def change(self, change: Change, patience: float = PATIENCE) -> None:
        """Apply a change to the stored ledger.

        :param change: May be called several times.
        :param patience: Seconds for which it is attempted.
        :raises FluxBudgetError: if the file is not a readable ledger.
        :raises FluxStoreError: if it cannot be read or written; it is unknown whether the change is stored.
        :raises FluxStoreConfigurationError: if a ledger can never be kept there.
        """
        pending = _Pending(change)
        self._queue.append(pending)
        with self._writing:
            if not pending.is_done:
                self._write_queued(pending, time.monotonic() + patience)
        if pending.error is not None:
            raise pending.error

    def _write_queued(self, own: _Pending, deadline: float) -> None:
        """Write all queued changes at once, those of other threads too."""
        group = [self._queue.popleft() for _ in range(len(self._queue))]
        try:
            self._write(group, deadline)
        except FluxError as error:
            for pending in group:
                pending.is_done, pending.error = True, _copy(error)
        except BaseException:
            # This thread is interrupted; the others write their changes themselves.
            self._queue.extendleft(pending for pending in reversed(group) if pending is not own)
            raise

    def _write(self, group: list[_Pending], deadline: float) -> None:
        failures = conflicts = 0
        error: FluxError
        while True:
            try:
                self._check_once()
                if self._attempt(group):
                    return
                continue
            except SidecarConflictError:
                conflicts, failures = conflicts + 1, 0
                error = FluxStoreError(f"{self.location} is changed by other processes too often to be written.")
            except FluxError:
                raise
            except Exception as trouble:
                # Each store's library has errors of its own. The write may have succeeded all the same.
                failures += 1
                error = self._store_error(trouble)
            self._is_known = False
            if failures >= _MAX_FAILURES or time.monotonic() > deadline:
                raise error
            # Pauses of random length, or the same processes would meet again.
            longest = min(_LONGEST_PAUSE, 0.05 * 2 ** min(conflicts + failures, 8))
            time.sleep(random.uniform(0.0, longest))  # noqa: S311 - jitter

    def _attempt(self, group: Iterable[_Pending]) -> bool:
        """Write the changes if the file is still as this process knows it; False: the file must be read first."""
        is_fresh = not self._is_known
        if is_fresh:
            self._file, self._is_known = self._store.read_sidecar(MAX_BYTES), True
        file = self._file
        ledger = Ledger(self._period) if file is None else read_ledger(file.data, self._period, self.location)
        is_changed = False
        for pending in group:
            if pending.apply(ledger):
                is_changed = True
            elif not is_fresh:
                # What an older file refuses, or does not contain, says nothing.
                self._is_known = False
                return False
        if is_changed:
            if file is None:
                self._check_conditions()
            self._file = self._store.replace_sidecar(ledger.to_json(), file)
        for pending in group:
            pending.is_done = True
        return True

    def _check_once(self) -> None:
        if not self._is_checked:
            self._store.check()
            self._is_checked = True

    def _check_conditions(self) -> None:
        """Check, before the period's first reservation, that the store refuses what it must refuse.

        A server that ignores the condition of a write would let two processes spend the same credits.

        :raises FluxStoreConfigurationError: if it does not.
        """
        probe = self._store.sibling(f"{self._store.uri.rpartition('/')[2]}-probe")
        self._refuses(probe, None)
        if not (self._refuses(probe, None) and self._refuses(probe, Sidecar(b"", _NO_VERSION))):
            raise FluxStoreConfigurationError(
                f"The store of {self.location} ignores the conditions of writes, so a budget cannot be kept there: two "
                f"tasks could spend the same credits."
            )

    @staticmethod
    def _refuses(probe: ImageStore, replaces: Sidecar | None) -> bool:
        try:
            probe.replace_sidecar(json.dumps({"probe": uuid.uuid4().hex}).encode(), replaces)
        except SidecarConflictError:
            return True
        return False

    def _store_error(self, trouble: Exception) -> FluxError:
        said = f"The ledger {self.location} cannot be read or written"
        if problem := self._store.misconfiguration(trouble):
            return FluxStoreConfigurationError(f"{said}: {problem.rstrip('.')}.")
        return FluxStoreError(f"{said} ({type(trouble).__name__}: {trouble}).")


def _copy(error: FluxError) -> FluxError:
    """Return an error of its own for each thread."""
    copied = type(error)(error.message, billing=error.billing)
    copied.retryable = error.retryable
    return copied
