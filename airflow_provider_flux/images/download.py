"""Download the image of a finished job to a file, verified, before its URL expires."""

from __future__ import annotations

import logging
import time
from pathlib import Path

from airflow_provider_flux.client.client import FluxClient
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.link_expiry import expiry_note, link_expiry
from airflow_provider_flux.client.responses import Result
from airflow_provider_flux.exceptions import FluxBadImageError, FluxError, FluxImageExpiredError, FluxServiceError
from airflow_provider_flux.images.verification import MAX_BYTES, Image, save_verified

log = logging.getLogger(__name__)

ATTEMPTS = 3
NEW_URL_TIMEOUT = 30.0
"""Seconds to wait for a new URL of an image."""


def download_image(client: FluxClient, result: Result, path: Path, max_bytes: int = MAX_BYTES) -> Image:
    """Write the image of a finished job to ``path`` and return its properties.

    A failed or incomplete transfer is retried, with a new URL in place of an expired one: the image is paid for.

    :param max_bytes: Largest accepted image, in bytes.
    :raises FluxBadImageError: if no whole image was delivered.
    :raises FluxServiceError: if the delivery host does not respond.
    """
    job = result.job
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if not result.sample:
                raise FluxImageExpiredError(f"Job {job.id} has no image to download.", job_id=job.id)
            with client.fetch(result.sample, job.id) as delivery:
                return save_verified(delivery.chunks, path, job.id, max_bytes)
        except FluxImageExpiredError:
            renewed = client.wait(job, time.time() + NEW_URL_TIMEOUT)
            if renewed.sample == result.sample:
                # Some hosts refuse an image that has only just reached them.
                if attempt == ATTEMPTS:
                    _check_expired(result)
                    raise
                time.sleep(0.5 * attempt)
            result = renewed
        except FluxError as error:
            if attempt == ATTEMPTS or not error.retryable:
                raise
            log.warning("Download attempt %d of the image of job %s failed: %s", attempt, job.id, error.message)
            time.sleep(0.5 * attempt)
    raise FluxBadImageError(f"The image of job {job.id} could not be downloaded.", job_id=job.id)


def _check_expired(result: Result) -> None:
    """Distinguish an expired URL from a host that refuses one that is still valid.

    :raises FluxServiceError: if the URL itself says that it is still valid.
    """
    expiry = link_expiry(result.sample or "")
    if expiry is not None and expiry > time.time():
        raise FluxServiceError(
            f"The delivery host refuses the image of job {result.job.id}. {expiry_note(result.sample, 0.0)}",
            job_id=result.job.id,
            billing=FluxBadImageError.billing_note(result.job.id),
        )


def download_job_image(client: FluxClient, job: Job, path: Path, timeout: float, max_bytes: int = MAX_BYTES) -> Image:
    """Wait for ``job``, write its image to ``path`` and return its properties.

    :param timeout: Seconds to wait.
    :raises FluxError: if there is no image to download.
    """
    return download_image(client, client.wait(job, time.time() + timeout), path, max_bytes)
