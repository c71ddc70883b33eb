"""Where a receipt is stored: beside its image, in Airflow's task state store, or nowhere.

A receipt store remembers the document that it read or wrote last, and replaces no other: of two processes that write,
one is refused and reads again.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from typing import Any, Protocol

from airflow_provider_flux.exceptions import FluxError, FluxStoreError
from airflow_provider_flux.receipts.receipt import MAX_BYTES, Receipt, read_receipt
from airflow_provider_flux.storage.base import ImageStore, Sidecar, SidecarConflictError

_MAX_CONFLICTS = 20
"""Consecutive conflicts that a few competing processes cannot explain."""


class ReceiptConflictError(Exception):
    """Another process wrote the receipt after this one read it."""


class ReceiptStore(Protocol):
    """Where one receipt is stored.

    :param location: The place, for messages.
    """

    location: str

    def read(self) -> Receipt | None:
        """Return the receipt; None if it certainly does not exist.

        :raises FluxReceiptError: if the document is not a readable receipt.
        :raises FluxStoreError: if it cannot be read.
        """

    def write(self, receipt: Receipt) -> None:
        """Store the receipt in place of the one that was read or written last.

        :raises ReceiptConflictError: if another process wrote after that.
        :raises FluxStoreError: if it cannot be written.
        """


class SidecarReceiptStore:
    """The receipt is a file beside the image (``hero.png`` -> ``hero.png.json``), on every version of Airflow.

    :param is_missing: Whether the file did not exist a moment ago. It is then not looked for: the first write creates
        it, on the condition that it still does not exist.
    """

    def __init__(self, store: ImageStore, is_missing: bool = False) -> None:
        self._store = store
        self._note: Sidecar | None = None
        self._latest: Receipt | None = None
        self._is_missing = is_missing
        self.location = f"{store.uri}.json"

    def recall(self) -> Receipt | None:
        """Return the receipt as this process read or wrote it last; read it if it has done neither.

        Another process may have changed it since: only a conditional write of what follows from it may rely on it.
        """
        return self.read() if self._latest is None else self._latest

    def read(self) -> Receipt | None:
        if self._is_missing:
            return None
        self._latest = None
        try:
            self._note = self._store.read_sidecar(MAX_BYTES)
        except Exception as error:
            # Each store's library has errors of its own, and an unreadable receipt is not a missing one.
            raise FluxStoreError(
                f"The receipt {self.location} cannot be read ({type(error).__name__}: {error})."
            ) from error
        if self._note is not None:
            self._latest = read_receipt(self._note.data, self.location)
        return self._latest

    def write(self, receipt: Receipt) -> None:
        data = receipt.to_json().encode()
        # From here on, only a read can say what is there, unless this write succeeds.
        self._is_missing, self._latest = False, None
        try:
            self._note = self._store.write_sidecar(data, self._note)
        except SidecarConflictError as error:
            raise ReceiptConflictError(str(error)) from error
        except Exception as error:
            if not self._has_written(data):
                job_id = None if receipt.job is None else receipt.job.id
                of_job = f" of job {job_id}" if job_id else ""
                raise FluxStoreError(
                    f"The receipt {self.location}{of_job} cannot be written ({type(error).__name__}: {error}).",
                    job_id=job_id,
                    billing=FluxError.billing_note(job_id) if job_id else None,
                ) from error
        self._latest = receipt

    def _has_written(self, data: bytes) -> bool:
        """Return whether a failed write took effect nevertheless, because only its response was lost."""
        with contextlib.suppress(Exception):
            note = self._store.read_sidecar(MAX_BYTES)
            if note is not None and note.data == data:
                self._note = note
                return True
        return False


class TaskStateReceiptStore:
    """The receipt is in Airflow's task state store (3.3 and later), which all attempts of a task share.

    That store has no conditional writes, so the document is compared right before each write.
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
            raise ReceiptConflictError(f"{self.location} was changed by another process.")
        document = json.loads(receipt.to_json())
        try:
            self._state.set(self.KEY, document, retention=NEVER_EXPIRE)
        except Exception as error:
            if not self._has_written(document):
                raise FluxStoreError(f"{self.location} cannot be written ({type(error).__name__}: {error}).") from error
        self._document = document

    def _has_written(self, document: Any) -> bool:
        """Return whether a failed write took effect nevertheless, because only its response was lost."""
        with contextlib.suppress(FluxStoreError):
            return bool(self._get() == document)
        return False

    def _get(self) -> Any:
        try:
            return self._state.get(self.KEY)
        except Exception as error:
            raise FluxStoreError(f"{self.location} cannot be read ({type(error).__name__}: {error}).") from error


class NullReceiptStore:
    """Stores no receipt: the Airflow version has no task state store, and the image is not stored."""

    location = "nowhere"

    def read(self) -> Receipt | None:
        return None

    def write(self, receipt: Receipt) -> None:
        """Discard the receipt."""


def open_receipt_store(store: ImageStore | None, task_state_store: Any) -> ReceiptStore:
    """Return the store of a task's receipt.

    :param store: Where the image is stored; None: nowhere.
    :param task_state_store: Airflow's task state store; None before Airflow 3.3.
    """
    if store is not None:
        return SidecarReceiptStore(store)
    return NullReceiptStore() if task_state_store is None else TaskStateReceiptStore(task_state_store)


def update(receipts: ReceiptStore, change: Callable[[Receipt | None], Receipt | None]) -> Receipt | None:
    """Change the current receipt, also while other processes write; return the receipt that was written.

    :param change: Maps the current receipt to the new one; None: keep the current one.
    :raises FluxReceiptError: if the document is not a readable receipt.
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
    raise FluxStoreError(f"{receipts.location} is changed by other processes too often to be written.")
