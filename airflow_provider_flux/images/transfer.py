"""Bring a finished job's image to its store, with its receipt: download it while its URL is valid, verify, store it."""

from __future__ import annotations

import contextlib
import logging
import mimetypes
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from airflow_provider_flux.client.client import FluxClient
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.link_expiry import expiry_note
from airflow_provider_flux.client.responses import Result
from airflow_provider_flux.exceptions import (
    FluxBadImageError,
    FluxError,
    FluxImageExistsError,
    FluxReceiptError,
    FluxStoreConfigurationError,
    FluxStoreError,
    job_context,
)
from airflow_provider_flux.images.download import download_image
from airflow_provider_flux.images.object_metadata import object_metadata
from airflow_provider_flux.images.verification import CONTENT_TYPES, MAX_BYTES, save_verified
from airflow_provider_flux.receipts.lifecycle import (
    check_not_replaced,
    readable_receipt,
    receipt_of_finished_job,
    record_image,
    record_stored,
)
from airflow_provider_flux.receipts.receipt import Receipt
from airflow_provider_flux.receipts.stores import SidecarReceiptStore
from airflow_provider_flux.results import ImageResult
from airflow_provider_flux.storage.base import ImageStore

log = logging.getLogger(__name__)


def download_and_store(
    client: FluxClient,
    result: Result,
    store: ImageStore,
    max_bytes: int = MAX_BYTES,
    receipts: SidecarReceiptStore | None = None,
) -> ImageResult:
    """Download, verify and store the image of a finished job, unless another process has stored it.

    The triggerer and the worker both call it.

    :param max_bytes: Largest accepted image, in bytes.
    :param receipts: The place of the receipt, if this process has written it already.
    :raises FluxBadImageError: if no whole image was delivered.
    :raises FluxStoreError: if the image could not be stored.
    """
    receipts, job = receipts or SidecarReceiptStore(store), result.job
    with _billing_of_a_paid_image(result), tempfile.TemporaryDirectory(prefix="flux-") as folder:
        # First of all: the URL expires, and the store may not respond for long.
        path = Path(folder) / "image"
        try:
            file = download_image(client, result, path, max_bytes)
        except FluxError:
            # An earlier attempt may have stored the image without recording it.
            if (stored := _image_stored_unrecorded(receipts, job, store)) is not None:
                return stored
            raise
        is_readable, earlier = readable_receipt(receipts, job)
        if earlier is not None and earlier.state == "stored" and (stored := _stored_image(earlier, job, store)):
            return stored
        if earlier is not None:
            check_not_replaced(earlier, job, store.uri)
        receipt = receipt_of_finished_job(result, earlier) if is_readable else None
        image = ImageResult.of_result(result).stored_at(store.uri, file)
        return _store_with_receipt(store, path, image, receipts, receipt)


@contextlib.contextmanager
def _billing_of_a_paid_image(result: Result) -> Iterator[None]:
    """Add to errors of the store until when the image can still be downloaded."""
    ready_at = time.time()
    try:
        with job_context(result.job.id):
            yield
    except (FluxStoreError, FluxStoreConfigurationError, FluxImageExistsError) as error:
        billing = f"{FluxStoreError.billing_note(result.job.id)} {expiry_note(result.sample, ready_at)}"
        raise type(error)(error.message, job_id=result.job.id, billing=billing) from error.__cause__


def _image_stored_unrecorded(receipts: SidecarReceiptStore, job: Job, store: ImageStore) -> ImageResult | None:
    """Return the image that is stored though its receipt does not record it; the receipt then does."""
    with contextlib.suppress(FluxError):
        receipt = receipts.read()
        if receipt is not None and (image := _stored_image(receipt, job, store)) is not None:
            record_stored(receipts, receipt)
            return image
    return None


def _stored_image(receipt: Receipt, job: Job, store: ImageStore) -> ImageResult | None:
    """Return the receipt's image if it is this job's and is stored unchanged."""
    with contextlib.suppress(Exception):
        if receipt.image is not None and receipt.image.id == job.id and receipt.image.is_in(store):
            return receipt.image
    return None


def _store_with_receipt(
    store: ImageStore, path: Path, image: ImageResult, receipts: SidecarReceiptStore, receipt: Receipt | None
) -> ImageResult:
    """Store the verified file with its metadata and its receipt.

    The receipt names the image before it is stored, so that it is found after a crash in between, and after.

    :param receipt: None: another document is in the receipt's place, and is kept.
    """
    _warn_of_misleading_name(store, image)
    if receipt is not None:
        receipt = record_image(receipts, replace(receipt, image=image))
        if receipt is None and (present := readable_receipt(receipts, image.job)[1]) is not None:
            check_not_replaced(present, image.job, store.uri)
        if receipt is not None and receipt.state == "stored" and receipt.image is not None:
            return receipt.image
    _put(store, path, image)
    if receipt is not None:
        try:
            record_stored(receipts, receipt)
        except FluxError as error:
            # The image is stored, and the receipt names it; the next attempt finds both.
            log.warning(
                "The image of job %s is stored, but its receipt does not record it: %s", image.id, error.message
            )
    return image


def _warn_of_misleading_name(store: ImageStore, image: ImageResult) -> None:
    implied = mimetypes.guess_type(store.uri)[0]
    if implied in CONTENT_TYPES.values() and implied != image.content_type:
        log.warning("The image of job %s is %s, although it is stored as %s.", image.id, image.content_type, store.uri)


def _put(store: ImageStore, path: Path, image: ImageResult) -> None:
    try:
        store.put(path, image.content_type or "", object_metadata(image))
    except FluxImageExistsError as error:
        billing = FluxStoreError.billing_note(image.id)
        raise FluxImageExistsError(error.message, job_id=image.id, billing=billing) from error
    except Exception as error:
        # Each store's library has errors of its own; here they all mean the same.
        raise FluxStoreError(
            f"The image of job {image.id} could not be stored at {store.uri} ({type(error).__name__}: {error}).",
            job_id=image.id,
        ) from error


def copy_stored_image(
    image: ImageResult, source: ImageStore, target: ImageStore, max_bytes: int = MAX_BYTES
) -> ImageResult:
    """Copy a stored image and its receipt; return the copy's result.

    :param image: The stored image.
    :param max_bytes: Largest accepted image, in bytes.
    :raises FluxBadImageError: if the stored file is not one whole image, or not this one.
    :raises FluxStoreError: if it could not be read or written.
    """
    with tempfile.TemporaryDirectory(prefix="flux-") as folder:
        stored, path = Path(folder) / "stored", Path(folder) / "image"
        try:
            with stored.open("wb") as target_file:
                source.get(target_file)
        except Exception as error:
            raise FluxStoreError(
                f"The image of job {image.id} could not be read from {source.uri} ({error}).", job_id=image.id
            ) from error
        with stored.open("rb") as stored_file:
            file = save_verified(iter(lambda: stored_file.read(1 << 20), b""), path, image.id, max_bytes)
        if image.sha256 not in (None, file.sha256):
            raise FluxBadImageError(
                f"The file at {source.uri} does not match the image of job {image.id} (SHA-256 differs).",
                job_id=image.id,
            )
        copied = image.stored_at(target.uri, file)
        receipt = Receipt("submitted", f"job {image.id}", image.model)
        with contextlib.suppress(FluxReceiptError):
            receipt = SidecarReceiptStore(source).read() or receipt
        receipts = SidecarReceiptStore(target)
        is_readable, present = readable_receipt(receipts, image.job)
        receipt = replace(receipt, state="submitted", job=copied.job, claim=None)
        if present is not None and not present.is_of(image.job):
            receipt = replace(receipt, replaced=[*receipt.replaced, *present.jobs_to_keep()])
        return _store_with_receipt(target, path, copied, receipts, receipt if is_readable else None)
