"""Every transition of a receipt: claimed, submitted, ready, stored, failed, expired.

Each one is a conditional write. A receipt that has a job never goes back to one that has none, and no process changes
the receipt of another one's job.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.exceptions import (
    FluxError,
    FluxImageExpiredError,
    FluxJobFailedError,
    FluxJobNotFoundError,
    FluxModeratedError,
)
from airflow_provider_flux.receipts.receipt import Receipt, State, new_claim
from airflow_provider_flux.receipts.stores import ReceiptConflictError, ReceiptStore, update

log = logging.getLogger(__name__)

PAID_STATES = ("submitted", "stored")
"""States of a receipt whose image need not be paid for again."""
CLAIM_RECHECK = 3.0
"""Seconds after which a claim is renewed before the request goes out: the process may have been stopped meanwhile."""
_MAX_RENEWALS = 5
"""Renewals in a row, each of which takes longer than that: the store is slow, and a request goes out all the same."""


class HeldClaim:
    """The right to submit one recipe: taken, renewed right before each request, given up.

    :param receipts: Where the receipt is kept; read before.
    :param intent: What is about to be submitted.
    :param seconds: How long one request may take.
    :raises ReceiptConflictError: from each method but :meth:`release`, if another process has taken the right.
    """

    def __init__(self, receipts: ReceiptStore, intent: Receipt, seconds: float) -> None:
        self._receipts = receipts
        self._seconds = seconds + CLAIM_RECHECK
        self.receipt = intent.with_state("intent")

    def take(self) -> None:
        """Write the intent, unless another process has written since the receipt was read."""
        # Before the write: a process that is stopped within it has an old claim afterwards.
        self._written_at = time.time()
        self.receipt = replace(self.receipt, claim=new_claim(self._seconds))
        self._receipts.write(self.receipt)

    def renew(self) -> None:
        """Make sure that this process still has the claim; to be called right before a request."""
        for _ in range(_MAX_RENEWALS):
            if time.time() - self._written_at <= CLAIM_RECHECK:
                return
            # Again if the process was stopped within this write too.
            self.take()

    def release(self, state: State = "intent", reason: str = "") -> None:
        """Say that the submit is over, without a job that is known."""
        given_up = self.receipt.with_state(state, reason=reason, claim=None)
        try:
            self._receipts.write(replace(given_up, times=self.receipt.times) if state == "intent" else given_up)
        except ReceiptConflictError:
            log.warning("%s belongs to another process by now.", self._receipts.location)


def record_submitted(
    receipts: ReceiptStore, submitted: Receipt, may_reuse: Callable[[Receipt], bool], is_claimed: bool
) -> Receipt:
    """Write down the job that was accepted; return the receipt of the job whose image is to be used.

    That is another job only if this process was stopped for so long that another one submitted in its place.

    :param may_reuse: Returns whether the image of a receipt may be taken instead.
    :param is_claimed: Whether what was read or written last is this process's own claim.
    """
    if is_claimed:
        with contextlib.suppress(ReceiptConflictError):
            receipts.write(submitted)
            return submitted

    def change(present: Receipt | None) -> Receipt | None:
        if present is None:
            return submitted
        if (present.job or {}).get("id") == (submitted.job or {}).get("id"):
            return present
        if not may_reuse(present):
            return None
        if present.state in PAID_STATES:
            return present.with_unused(submitted.job, submitted.run)
        return submitted

    used = update(receipts, change)
    job_id = submitted.paid_job().id
    if used is None:
        log.warning("%s belongs to another job by now, and does not name job %s.", receipts.location, job_id)
        return submitted
    if used.paid_job().id != job_id:
        log.warning(
            "Job %s (%s credits) was submitted a second time for one image: this process was stopped, and another one "
            "submitted job %s meanwhile. The image of job %s is used; both jobs are billed.",
            job_id,
            submitted.paid_job().cost,
            used.paid_job().id,
            used.paid_job().id,
        )
    return used


def record_image(receipts: ReceiptStore, receipt: Receipt) -> Receipt | None:
    """Write down the image that is about to be stored, so that a crash does not hide it.

    :param receipt: With the image's description.
    :return: What was written, which is ``stored`` if another process has stored the image meanwhile; None if the
        receipt belongs to another job by now, and is kept as it is.
    """

    def change(present: Receipt | None) -> Receipt | None:
        if present is None:
            return receipt
        if not present.may_be_of(receipt.paid_job()):
            return None if present.state in PAID_STATES or present.is_being_submitted else receipt
        if present.state == "stored":
            return present
        return replace(present, job=receipt.job, image=receipt.image, parameters=receipt.parameters, claim=None)

    with contextlib.suppress(ReceiptConflictError):
        receipts.write(receipt)
        return receipt
    return update(receipts, change)


def record_stored(receipts: ReceiptStore, receipt: Receipt) -> None:
    """Write down that the image is stored."""

    def change(present: Receipt | None) -> Receipt | None:
        if present is None or (present.may_be_of(receipt.paid_job()) and present.state != "stored"):
            return replace(present or receipt, job=receipt.job, image=receipt.image).with_state("stored")
        return None

    try:
        receipts.write(receipt.with_state("stored"))
    except ReceiptConflictError:
        update(receipts, change)


def mark_ready(receipts: ReceiptStore, job: Job) -> bool:
    """Write down that a job whose image is not stored is ready; return whether that is news.

    What was counted as paid once is not counted again.
    """

    def change(present: Receipt | None) -> Receipt | None:
        if present is not None and present.job is None and present.may_be_of(job):
            present = present.with_state("submitted", job=job.to_dict(), claim=None)
        is_news = present is not None and (present.job or {}).get("id") == job.id and "ready" not in present.times
        return present.with_timestamp("ready") if present is not None and is_news else None

    try:
        if update(receipts, change) is not None:
            return True
        present = receipts.read()
    except FluxError as error:
        log.warning("The receipt does not show that the image was ready: %s", error.message)
        return True
    return present is None or (present.job or {}).get("id") != job.id


@contextlib.contextmanager
def failure_recorded(receipts: ReceiptStore, on_expired: str, seed: int | None = None) -> Iterator[None]:
    """Write down how a job ended, if it ends without an image.

    :param on_expired: Whether a retry may pay for a lost image again (``"resubmit"``) or not (``"fail"``).
    :param seed: The seed it was made with, if known.
    """
    try:
        yield
    except (FluxModeratedError, FluxJobFailedError) as error:
        # The same seed would be moderated again.
        _record_failure(receipts, error, "failed", seed=None)
        raise
    except (FluxImageExpiredError, FluxJobNotFoundError) as error:
        _record_failure(receipts, error, "expired", **({} if seed is None else {"seed": seed}))
        error.retryable = on_expired == "resubmit"
        raise


def _record_failure(receipts: ReceiptStore, error: FluxError, state: State, **changes: Any) -> None:
    def change(present: Receipt | None) -> Receipt | None:
        # An image that another process has stored meanwhile is there, whatever the API says by now.
        is_news = present is not None and (present.job or {}).get("id") == error.job_id and present.state != "stored"
        return present.with_state(state, reason=error.message, **changes) if present is not None and is_news else None

    try:
        update(receipts, change)
    except FluxError as unwritten:
        log.error("The receipt does not show how job %s ended: %s", error.job_id, unwritten)
