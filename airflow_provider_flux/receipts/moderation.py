"""After output moderation: whether another job may be submitted for the same image, with another seed.

The receipt counts the jobs, so that no attempt of a task starts the count again.
"""

from __future__ import annotations

import logging

from airflow_provider_flux.exceptions import FluxContentModeratedError, FluxError
from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.receipts.receipt import Receipt
from airflow_provider_flux.receipts.stores import ReceiptStore

log = logging.getLogger(__name__)


def check_resubmit(
    receipts: ReceiptStore, error: FluxContentModeratedError, run: TaskIdentity, retries: int
) -> Receipt:
    """Return the receipt that counts the moderated jobs, if another one may be submitted after ``error``.

    It may not if the author chose the seed, or if the receipt does not record the moderated job.

    :param run: The task that pays.
    :param retries: Moderated jobs after which another one may be submitted.
    :raises FluxContentModeratedError: ``error``, or one that counts all jobs, if none may.
    """
    try:
        receipt = receipts.read()
    except FluxError:
        raise error from None
    if receipt is None or error.job_id not in receipt.moderated:
        raise error
    from airflow_provider_flux.client.catalogue.models import accepts

    jobs = receipt.moderated_jobs(run)
    if receipt.seed is not None and len(jobs) <= retries:
        log.warning(
            "%s %s Submitting again%s (moderation_retries, %d of %d).",
            error.message,
            error.billing,
            " with another seed" if accepts(str(receipt.model), "seed") else "",
            max(1, len(jobs)),
            retries,
        )
        return receipt
    if len(jobs) <= 1:
        raise error
    raise FluxContentModeratedError(
        f"{error.message} It is the last of {len(jobs)} moderated jobs for this image.",
        job_id=error.job_id,
        billing=f"Each of the jobs {', '.join(jobs)} may be billed: Black Forest Labs does not say whether they are.",
    )
