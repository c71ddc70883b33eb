"""Every transition of a receipt: claimed, submitted, ready, stored, failed, expired.

Each one is a conditional write. A receipt that has a job never loses it, and no process changes the receipt of another
process's job.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from airflow_provider_flux.client.catalogue.prices import format_cost
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.responses import Result
from airflow_provider_flux.exceptions import (
    FluxContentModeratedError,
    FluxError,
    FluxImageExpiredError,
    FluxJobFailedError,
    FluxJobNotFoundError,
    FluxModeratedError,
    FluxReceiptError,
    FluxStoreConfigurationError,
    FluxStoreError,
)
from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.receipts.receipt import PAID_STATES, Receipt, ReceiptState, new_claim
from airflow_provider_flux.receipts.stores import ReceiptConflictError, ReceiptStore, SidecarReceiptStore, update
from airflow_provider_flux.redaction import redact

log = logging.getLogger(__name__)

CLAIM_RECHECK = 3.0
"""Age in seconds from which a claim is renewed before the request is sent: the process may have been suspended."""
_MAX_RENEWALS = 5
"""Consecutive renewals that each take longer than that: the store is merely slow, and the request is sent."""


class HeldClaim:
    """The right to submit one recipe: taken, renewed right before each request, released.

    :param receipts: Where the receipt is stored; already read.
    :param intent: The receipt of what is about to be submitted.
    :param seconds: Longest duration of one request.
    :raises ReceiptConflictError: from each method but :meth:`release`, if another process has claimed the submit.
    """

    def __init__(self, receipts: ReceiptStore, intent: Receipt, seconds: float) -> None:
        self._receipts = receipts
        self._seconds = seconds + CLAIM_RECHECK
        self.receipt = intent.with_state("intent")

    def take(self) -> None:
        """Write the intent, unless another process wrote after the receipt was read."""
        # Before the write: a process that is suspended during it has an old claim afterwards.
        self._written_at = time.time()
        self.receipt = replace(self.receipt, claim=new_claim(self._seconds))
        self._receipts.write(self.receipt)

    def renew(self) -> None:
        """Ensure that this process still has the claim; called right before a request."""
        for _ in range(_MAX_RENEWALS):
            if time.time() - self._written_at <= CLAIM_RECHECK:
                return
            # Once more if the process was suspended during this write, too.
            self.take()

    def release(self, state: ReceiptState = "intent", reason: str = "") -> None:
        """Record that the submit ended without a known job."""
        released = self.receipt.with_state(state, reason=reason, claim=None)
        try:
            self._receipts.write(replace(released, times=self.receipt.times) if state == "intent" else released)
        except ReceiptConflictError:
            log.warning("%s belongs to another process now.", self._receipts.location)


def record_submitted(
    receipts: ReceiptStore, submitted: Receipt, may_reuse: Callable[[Receipt], bool], is_claimed: bool
) -> Receipt:
    """Record the job that was accepted; return the receipt of the job whose image is used.

    That is another job only if this process was suspended for so long that another one submitted in its place.

    :param may_reuse: Returns whether the image of a receipt may be used instead.
    :param is_claimed: Whether the receipt that was read or written last is this process's own claim.
    """
    if is_claimed:
        with contextlib.suppress(ReceiptConflictError):
            receipts.write(submitted)
            return submitted

    def change(present: Receipt | None) -> Receipt | None:
        if present is None:
            return submitted
        if present.is_of(submitted.paid_job):
            return present
        if not may_reuse(present):
            return None
        if present.state in PAID_STATES:
            return present.with_unused(submitted.paid_job, submitted.run)
        return submitted

    used = update(receipts, change)
    job = submitted.paid_job
    if used is None:
        log.warning("%s belongs to another job now and does not name job %s.", receipts.location, job.id)
        return submitted
    if not used.is_of(job):
        log.warning(
            "Job %s (%s) is the second submit for one image: this process was suspended, and another one "
            "submitted job %s meanwhile. The image of job %s is used; both jobs are billed.",
            job.id,
            "cost unknown" if job.cost is None else format_cost(job.cost),
            used.paid_job.id,
            used.paid_job.id,
        )
    return used


def readable_receipt(receipts: SidecarReceiptStore, job: Job) -> tuple[bool, Receipt | None]:
    """Return whether a receipt of ``job`` may be written, and the present receipt as far as this process knows it.

    A document that is not a receipt is kept: the image of a paid job is then stored without one.
    """
    try:
        return True, receipts.recall()
    except FluxReceiptError as error:
        log.error("%s The file is kept; the image of job %s is stored without a receipt.", error.message, job.id)
        return False, None


def record_expected(receipts: ReceiptStore, job: Job, run: TaskIdentity, uri: str) -> None:
    """Record a job whose image is about to be stored at ``uri``; a document that is not a receipt is kept.

    :raises FluxStoreConfigurationError: if another process stores the image of another job there at this moment.
    """
    is_first = True

    def change(present: Receipt | None) -> Receipt | None:
        nonlocal is_first
        if present is not None and present.is_of(job):
            return None
        if not is_first and present is not None:
            check_not_replaced(present, job, uri)
        is_first = False
        replaced = [] if present is None else present.jobs_to_keep()
        receipt = Receipt("submitted", f"job {job.id}", job.model, run=run, job=job, replaced=replaced)
        return receipt.with_state("submitted")

    try:
        update(receipts, change)
    except FluxReceiptError as error:
        log.error("%s The file is kept; the image of job %s is stored without a receipt.", error.message, job.id)


def receipt_of_finished_job(result: Result, earlier: Receipt | None) -> Receipt | None:
    """Return the receipt of a finished job; None if its place belongs to a later job or submit.

    :param earlier: The present receipt.
    """
    job = result.job
    if earlier is not None and not earlier.may_be_of(job):
        if earlier.state in PAID_STATES or earlier.is_being_submitted:
            return None
        earlier = None
    if earlier is None:
        earlier = Receipt("submitted", f"job {job.id}", job.model)
    known = {"prompt": result.prompt, "seed": result.seed}
    parameters = earlier.parameters or redact({name: value for name, value in known.items() if value is not None})
    # A receipt without a job is the intent whose job could not be recorded: its recipe is this image's.
    return replace(
        earlier,
        state="submitted",
        job=job if result.cost is None else replace(job, cost=result.cost),
        parameters=parameters or None,
        claim=None,
    )


def check_not_replaced(present: Receipt, job: Job, uri: str) -> None:
    """Check that the image at ``uri`` has not been replaced by another one.

    :param present: The receipt there, which names an image right before it is stored.
    :raises FluxStoreConfigurationError: if it belongs to another job.
    """
    if present.state in PAID_STATES and present.image is not None and not present.may_be_of(job):
        raise FluxStoreConfigurationError(
            f"The image of job {job.id} is not stored: {uri} holds that of job {present.paid_job.id} ({present.run}) "
            "now. Two runs or tasks share this destination; give each its own, for example with {{ run_id }} in it.",
            job_id=job.id,
            billing=FluxStoreError.billing_note(job.id),
        )


def record_image(receipts: ReceiptStore, receipt: Receipt) -> Receipt | None:
    """Record the image that is about to be stored, so that it is found after a crash.

    :param receipt: Contains the image.
    :return: The receipt that was written, which is ``stored`` if another process has stored the image meanwhile; None
        if the receipt belongs to another job now, or is not a receipt any more, and is kept unchanged.
    """

    def change(present: Receipt | None) -> Receipt | None:
        if present is None:
            return receipt
        if not present.may_be_of(receipt.paid_job):
            return None if present.state in PAID_STATES or present.is_being_submitted else receipt
        if present.state == "stored":
            return present
        return replace(present, job=receipt.job, image=receipt.image, parameters=receipt.parameters, claim=None)

    with contextlib.suppress(ReceiptConflictError):
        receipts.write(receipt)
        return receipt
    with contextlib.suppress(FluxReceiptError):
        return update(receipts, change)
    return None


def record_stored(receipts: ReceiptStore, receipt: Receipt) -> None:
    """Record that the image is stored."""

    def change(present: Receipt | None) -> Receipt | None:
        if present is None or (present.may_be_of(receipt.paid_job) and present.state != "stored"):
            return replace(present or receipt, job=receipt.job, image=receipt.image).with_state("stored")
        return None

    try:
        receipts.write(receipt.with_state("stored"))
    except ReceiptConflictError:
        update(receipts, change)


def mark_ready(receipts: ReceiptStore, job: Job) -> bool:
    """Record that a job whose image is not stored is ready; return whether this is the first time.

    So a job is counted as paid once.
    """

    def change(present: Receipt | None) -> Receipt | None:
        if present is not None and present.job is None and present.may_be_of(job):
            present = present.with_state("submitted", job=job, claim=None)
        if present is None or not present.is_of(job) or "ready" in present.times:
            return None
        return present.with_timestamp("ready")

    try:
        if update(receipts, change) is not None:
            return True
        present = receipts.read()
    except FluxError as error:
        log.warning("The receipt does not record that the image was ready: %s", error.message)
        return True
    return present is None or not present.is_of(job)


@contextlib.contextmanager
def failure_recorded(receipts: ReceiptStore, on_expired: str, seed: int | None = None) -> Iterator[None]:
    """Record how a job ended, if it ends without an image.

    :param on_expired: Whether a retry may pay for a lost image again (``"resubmit"``) or not (``"fail"``).
    :param seed: The seed that the image was generated with, if known.
    """
    try:
        yield
    except FluxContentModeratedError as error:
        _record_moderated(receipts, error)
        raise
    except (FluxModeratedError, FluxJobFailedError) as error:
        # The same seed would be moderated again.
        _record_failure(receipts, error, "failed", seed=None)
        raise
    except (FluxImageExpiredError, FluxJobNotFoundError) as error:
        _record_failure(receipts, error, "expired", **({} if seed is None else {"seed": seed}))
        error.retryable = on_expired == "resubmit"
        raise


def _record_failure(receipts: ReceiptStore, error: FluxError, state: ReceiptState, **changes: Any) -> None:
    _record_end(receipts, error, lambda present: present.with_state(state, reason=error.message, **changes))


def _record_moderated(receipts: ReceiptStore, error: FluxError) -> None:
    def end(present: Receipt) -> Receipt | None:
        # Another process may have polled the same job.
        if present.paid_job.id in present.moderated:
            return None
        return present.with_moderated().with_state("failed", reason=error.message)

    _record_end(receipts, error, end)


def _record_end(receipts: ReceiptStore, error: FluxError, end: Callable[[Receipt], Receipt | None]) -> None:
    def change(present: Receipt | None) -> Receipt | None:
        # An image that another process has stored meanwhile exists, whatever the API returns now.
        if present is None or present.job is None or present.job.id != error.job_id or present.state == "stored":
            return None
        return end(present)

    try:
        update(receipts, change)
    except FluxError as unwritten:
        log.error("The receipt does not record how job %s ended: %s", error.job_id, unwritten)
