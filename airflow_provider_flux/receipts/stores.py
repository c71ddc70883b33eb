"""Where a receipt is kept: beside its image, in Airflow's task state store, or nowhere.

A receipt store remembers what it has read or written last, and replaces nothing else: of two processes that want to
write, one is refused and reads again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, Protocol

from airflow_provider_flux.exceptions import FluxStoreError
from airflow_provider_flux.receipts.receipt import MAX_BYTES, Receipt, read_receipt
from airflow_provider_flux.storage.base import ImageStore, Sidecar, SidecarConflictError

_MAX_CONFLICTS = 20
"""Conflicts in a row after which something other than a few other processes is at work."""


class ReceiptConflictError(Exception):
    """Another process has written the receipt since this one read it."""


class ReceiptStore(Protocol):
    """Where one receipt is kept."""

    location: str

    def read(self) -> Receipt | None:
        """Return the receipt; None if there certainly is none.

        :raises FluxReceiptError: if what is there is no receipt.
        :raises FluxStoreError: if it cannot be read.
        """

    def write(self, receipt: Receipt) -> None:
        """Keep the receipt in place of the one that was read or written last.

        :raises ReceiptConflictError: if another process has written since.
        :raises FluxStoreError: if it cannot be written.
        """


class SidecarReceiptStore:
    """The receipt is a file beside the image (``hero.png`` -> ``hero.png.json``), on every version of Airflow."""

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._note: Sidecar | None = None
        self.location = f"{store.uri}.json"

    def read(self) -> Receipt | None:
        try:
            self._note = self._store.read_sidecar(MAX_BYTES)
        except Exception as error:
            # Whatever the store's library says: "cannot be read" is not "there is none".
            raise FluxStoreError(
                f"The receipt {self.location} cannot be read ({type(error).__name__}: {error})."
            ) from error
        return None if self._note is None else read_receipt(self._note.data, self.location)

    def write(self, receipt: Receipt) -> None:
        data = receipt.to_json().encode()
        try:
            self._note = self._store.write_sidecar(data, self._note)
        except SidecarConflictError as error:
            raise ReceiptConflictError(str(error)) from error
        except Exception as error:
            if self._has_written(data):
                return
            job_id = (receipt.job or {}).get("id")
            raise FluxStoreError(
                f"The receipt {self.location} of job {job_id} cannot be written ({type(error).__name__}: {error}).",
                job_id=job_id,
                billing=f"Job {job_id} was accepted and is billed if it finishes." if job_id else None,
            ) from error

    def _has_written(self, data: bytes) -> bool:
        """Return whether a write that failed has taken effect, as one has whose answer was lost."""
        with contextlib.suppress(Exception):
            note = self._store.read_sidecar(MAX_BYTES)
            if note is not None and note.data == data:
                self._note = note
                return True
        return False


class TaskStateReceiptStore:
    """The receipt is in Airflow's task state store (3.3 and later), which all attempts of a task share.

    That store has no conditional writes: a look just before each write has to do.
    """

    KEY = "flux_receipt"
    location = "The receipt in the task state store (key 'flux_receipt')"

    def __init__(self, task_state_store: Any) -> None:
        self._state = task_state_store
        self._document: Any = None

    def read(self) -> Receipt | None:
        self._document = self._get()
        return None if self._document is None else read_receipt(json.dumps(self._document), self.location)

    def write(self, receipt: Receipt) -> None:
        from airflow.sdk.execution_time.context import NEVER_EXPIRE

        if self._get() != self._document:
            raise ReceiptConflictError(f"{self.location} was written by another process.")
        document = json.loads(receipt.to_json())
        try:
            self._state.set(self.KEY, document, retention=NEVER_EXPIRE)
        except Exception as error:
            if not self._has_written(document):
                raise FluxStoreError(f"{self.location} cannot be written ({type(error).__name__}: {error}).") from error
        self._document = document

    def _has_written(self, document: Any) -> bool:
        """Return whether a write that failed has taken effect, as one has whose answer was lost."""
        with contextlib.suppress(FluxStoreError):
            return bool(self._get() == document)
        return False

    def _get(self) -> Any:
        try:
            return self._state.get(self.KEY)
        except Exception as error:
            raise FluxStoreError(f"{self.location} cannot be read ({type(error).__name__}: {error}).") from error


class NullReceiptStore:
    """No place for a receipt: an Airflow before 3.3, and no place for the image."""

    location = "nowhere"

    def read(self) -> Receipt | None:
        return None

    def write(self, receipt: Receipt) -> None:
        """Forget it."""


def open_receipt_store(store: ImageStore | None, task_state_store: Any) -> ReceiptStore:
    """Return the place where a task's receipt is kept.

    :param store: Where the image goes; None: nowhere.
    :param task_state_store: Airflow's task state store; None where there is none.
    """
    if store is not None:
        return SidecarReceiptStore(store)
    return NullReceiptStore() if task_state_store is None else TaskStateReceiptStore(task_state_store)


def update(receipts: ReceiptStore, change: Callable[[Receipt | None], Receipt | None]) -> Receipt | None:
    """Change the receipt as it is at this moment, whoever else writes; return what was written.

    :param change: Returns the new receipt of the present one; None: leave that alone.
    :raises FluxReceiptError: if what is there is no receipt.
    :raises FluxStoreError: if it cannot be read or written.
    """
    for _ in range(_MAX_CONFLICTS):
        changed = change(receipts.read())
        if changed is None:
            return None
        try:
            receipts.write(changed)
        except ReceiptConflictError:
            continue
        return changed
    raise FluxStoreError(f"{receipts.location} is written by other processes all the time.")
