"""Deliver a finished job's image: fetch it while its link lives, check it, store it, describe it."""

from __future__ import annotations

import contextlib
import logging
import mimetypes
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from airflow_provider_flux.client.client import FluxClient
from airflow_provider_flux.client.jobs import Job, job_from
from airflow_provider_flux.client.link_expiry import expiry_note, link_expiry
from airflow_provider_flux.client.responses import Result
from airflow_provider_flux.exceptions import (
    FluxBadImageError,
    FluxError,
    FluxImageExistsError,
    FluxImageExpiredError,
    FluxReceiptError,
    FluxServiceError,
    FluxStoreConfigurationError,
    FluxStoreError,
    job_context,
)
from airflow_provider_flux.images.verification import CONTENT_TYPES, MAX_BYTES, Image, save_verified
from airflow_provider_flux.receipts.lifecycle import PAID_STATES, record_image, record_stored
from airflow_provider_flux.receipts.receipt import Receipt, TaskIdentity
from airflow_provider_flux.receipts.stores import SidecarReceiptStore, update
from airflow_provider_flux.redaction import redact
from airflow_provider_flux.results import describe, describe_job
from airflow_provider_flux.storage.base import ImageStore
from airflow_provider_flux.storage.s3 import S3Store, job_in, metadata_text

log = logging.getLogger(__name__)

ATTEMPTS = 3
FRESH_LINK_TIMEOUT = 30.0
"""Seconds for which a job is asked for another link."""


def download_and_store(
    client: FluxClient, result: Result, store: ImageStore, max_bytes: int = MAX_BYTES
) -> dict[str, Any]:
    """Fetch, check and store the image of a finished job, unless another process has; return its description.

    The triggerer and the worker both call it.

    :param max_bytes: A larger image is refused.
    :raises FluxBadImageError: if no whole image could be fetched.
    :raises FluxStoreError: if it could not be stored.
    """
    with _paid_and_not_stored(result), tempfile.TemporaryDirectory(prefix="flux-") as folder:
        # First of all: the link dies, and the store may not answer for long.
        path, receipts = Path(folder) / "image", SidecarReceiptStore(store)
        try:
            image = fetch_image(client, result, path, max_bytes)
        except FluxError:
            # An earlier attempt may have put the image and not known it.
            if (stored := _put_before(receipts, result.job, store)) is not None:
                return stored
            raise
        is_free, earlier = _read_receipt(receipts, result.job.id)
        if earlier is not None and _is_stored(earlier, result.job, store):
            return dict(earlier.image or {})
        if earlier is not None:
            _check_not_replaced(earlier, result.job, store)
        receipt = _receipt_of(result, earlier) if is_free else None
        described = {**describe(result), **_place(store, image)}
        return _store_with_receipt(store, path, image, described, receipts, receipt)


@contextlib.contextmanager
def _paid_and_not_stored(result: Result) -> Iterator[None]:
    """Let errors of the store say until when the image can still be fetched."""
    ready_at = time.time()
    try:
        with job_context(result.job.id):
            yield
    except (FluxStoreError, FluxStoreConfigurationError, FluxImageExistsError) as error:
        paid = FluxStoreError.billing_note(result.job.id)
        money = f"{paid} {expiry_note(result.sample, ready_at)}"
        raise type(error)(error.message, job_id=result.job.id, billing=money) from error.__cause__


def _receipt_of(result: Result, earlier: Receipt | None) -> Receipt | None:
    """Return the receipt of a finished job; None if its place belongs to a job or a submit that came later.

    :param earlier: What is in its place.
    """
    job = result.job
    known = {"prompt": result.prompt, "seed": result.seed}
    known = {name: value for name, value in known.items() if value is not None}
    if earlier is not None and not earlier.may_be_of(job):
        if earlier.state in PAID_STATES or earlier.is_being_submitted:
            return None
        earlier = None
    if earlier is None:
        earlier = Receipt("submitted", f"job {job.id}", job.model)
    settled = job if result.cost is None else replace(job, cost=result.cost)
    # One without a job is the intent whose job could not be written down: its recipe is this image's.
    return replace(
        earlier,
        state="submitted",
        job=settled.to_dict(),
        parameters=earlier.parameters or redact(known) or None,
        claim=None,
    )


def _check_not_replaced(present: Receipt, job: Job, store: ImageStore) -> None:
    """Refuse to put an image over one that has taken its place meanwhile.

    :raises FluxStoreConfigurationError: naming both.
    """
    # A receipt names the image right before it is put.
    if present.state in PAID_STATES and present.image is not None and not present.may_be_of(job):
        raise FluxStoreConfigurationError(
            f"The image of job {job.id} is not stored: {store.uri} holds that of job {present.paid_job().id} "
            f"({present.run}) by now. Two runs or tasks share this place; give each one of its own, for example with "
            "{{ run_id }} in it.",
            job_id=job.id,
            billing=FluxStoreError.billing_note(job.id),
        )


def _put_before(receipts: SidecarReceiptStore, job: Job, store: ImageStore) -> dict[str, Any] | None:
    """Return the description of an image that is at its place though its receipt does not say so."""
    with contextlib.suppress(FluxError):
        receipt = receipts.read()
        if receipt is not None and receipt.image is not None and _is_there(receipt, job, store):
            record_stored(receipts, receipt)
            return receipt.image
    return None


def _is_stored(receipt: Receipt, job: Job, store: ImageStore) -> bool:
    return receipt.state == "stored" and _is_there(receipt, job, store)


def _is_there(receipt: Receipt, job: Job, store: ImageStore) -> bool:
    if receipt.image is None or receipt.image["id"] != job.id:
        return False
    with contextlib.suppress(Exception):
        return store.matches(receipt.image["bytes"], receipt.image["sha256"])
    return False


def _place(store: ImageStore, image: Image) -> dict[str, Any]:
    return {"uri": store.uri, **image.to_dict(), "content_type": image.content_type}


def fetch_image(client: FluxClient, result: Result, path: Path, max_bytes: int = MAX_BYTES) -> Image:
    """Write the image of a finished job to ``path`` and return what it is.

    A failed or broken transfer is retried, and a new link is asked for in place of a dead one: the image is paid for.

    :param max_bytes: A larger image is refused.
    :raises FluxBadImageError: if no whole image came.
    :raises FluxServiceError: if the delivery host does not answer.
    """
    job = result.job
    for attempt in range(1, ATTEMPTS + 1):
        try:
            if not result.sample:
                raise FluxImageExpiredError(f"Job {job.id} has no image to fetch.", job_id=job.id)
            with client.fetch(result.sample, job.id) as delivery:
                return save_verified(delivery.chunks, path, job.id, max_bytes)
        except FluxImageExpiredError:
            fresh = client.wait(job, time.time() + FRESH_LINK_TIMEOUT)
            if fresh.sample == result.sample:
                # Once more: some hosts refuse an image that has only just come to them.
                if attempt == ATTEMPTS:
                    _raise_if_alive(result)
                    raise
                time.sleep(0.5 * attempt)
            result = fresh
        except FluxError as error:
            if attempt == ATTEMPTS or not error.retryable:
                raise
            log.warning("Attempt %d to fetch the image of job %s: %s", attempt, job.id, error.message)
            time.sleep(0.5 * attempt)
    raise FluxBadImageError(f"The image of job {job.id} could not be fetched.", job_id=job.id)


def _raise_if_alive(result: Result) -> None:
    """Take the refusal of a link that still lives for what it is: a host that fails.

    :raises FluxServiceError: if the link says that it lives.
    """
    expiry = link_expiry(result.sample or "")
    if expiry is not None and expiry > time.time():
        raise FluxServiceError(
            f"The delivery host refuses the image of job {result.job.id}. {expiry_note(result.sample, 0.0)}",
            job_id=result.job.id,
            billing=FluxBadImageError.billing_note(result.job.id),
        )


def fetch_job(client: FluxClient, job: Job, path: Path, timeout: float, max_bytes: int = MAX_BYTES) -> Image:
    """Wait for ``job``, write its image to ``path`` and return what it is.

    :param timeout: Seconds to wait.
    :raises FluxError: if there is no image to fetch.
    """
    return fetch_image(client, client.wait(job, time.time() + timeout), path, max_bytes)


def _store_with_receipt(
    store: ImageStore,
    path: Path,
    image: Image,
    described: dict[str, Any],
    receipts: SidecarReceiptStore,
    receipt: Receipt | None,
) -> dict[str, Any]:
    """Store the captured file with its metadata and its receipt.

    The receipt names the image before it is put, so that a crash in between does not hide it, and after.

    :param receipt: None: another one is there, and is kept.
    """
    job_id = described["id"]
    named = mimetypes.guess_type(store.uri)[0]
    if named in CONTENT_TYPES.values() and named != image.content_type:
        log.warning("The image of job %s is %s, though its name is %s.", job_id, image.content_type, store.uri)
    if receipt is not None:
        receipt = record_image(receipts, replace(receipt, image=described))
        if receipt is None and (present := receipts.read()) is not None:
            _check_not_replaced(present, job_from(described), store)
        if receipt is not None and receipt.state == "stored" and receipt.image is not None:
            return receipt.image
    try:
        store.put(path, image.content_type, _metadata(image, described))
    except FluxImageExistsError as error:
        raise FluxImageExistsError(error.message, job_id=job_id, billing=FluxStoreError.billing_note(job_id)) from error
    except Exception as error:
        # Each store's library has errors of its own; what they mean here is one thing.
        raise FluxStoreError(
            f"The image of job {job_id} could not be stored at {store.uri} ({type(error).__name__}: {error}).",
            job_id=job_id,
        ) from error
    if receipt is not None:
        try:
            record_stored(receipts, receipt)
        except FluxError as error:
            # The image is there, and the receipt names it; the next attempt finds both.
            log.warning("The image of job %s is stored, but its receipt does not say so yet: %s", job_id, error.message)
    return described


def _metadata(image: Image, described: Mapping[str, Any]) -> dict[str, str]:
    metadata = {
        "job-id": described["id"],
        "model": described.get("model"),
        "seed": described.get("seed"),
        "sha256": image.sha256,
        "width": image.width,
        "height": image.height,
        "format": image.format,
    }
    return {name: str(value) for name, value in metadata.items() if value is not None}


def copy(told: Mapping[str, Any], source: ImageStore, target: ImageStore, max_bytes: int = MAX_BYTES) -> dict[str, Any]:
    """Copy an image that is stored already, and its receipt; return its description, which says where it lies now.

    :param told: Its description so far.
    :param max_bytes: A larger image is refused.
    :raises FluxBadImageError: if what lies there is not one whole image.
    :raises FluxStoreError: if it could not be read or written.
    """
    job_id = told["id"]
    with tempfile.TemporaryDirectory(prefix="flux-") as folder:
        stored, path = Path(folder) / "stored", Path(folder) / "image"
        try:
            with stored.open("wb") as file:
                source.get(file)
        except Exception as error:
            raise FluxStoreError(
                f"The image of job {job_id} could not be read from {source.uri} ({error}).", job_id=job_id
            ) from error
        with stored.open("rb") as file:
            image = save_verified(iter(lambda: file.read(1 << 20), b""), path, job_id, max_bytes)
        if told.get("sha256") not in (None, image.sha256):
            raise FluxBadImageError(f"What lies at {source.uri} is no longer the image of job {job_id}.", job_id=job_id)
        told = {**told, **_place(target, image)}
        receipt = Receipt("submitted", f"job {job_id}", told.get("model"))
        with contextlib.suppress(FluxReceiptError):
            receipt = SidecarReceiptStore(source).read() or receipt
        receipts = SidecarReceiptStore(target)
        is_free, _ = _read_receipt(receipts, job_id)
        copied = replace(receipt, state="submitted", job=job_from(told).to_dict(), claim=None)
        _store_with_receipt(target, path, image, told, receipts, copied if is_free else None)
    return told


def _read_receipt(receipts: SidecarReceiptStore, job_id: str) -> tuple[bool, Receipt | None]:
    """Return whether the receipt of ``job_id`` may be written beside its image, and the one that is there."""
    try:
        return True, receipts.read()
    except FluxReceiptError as error:
        log.error("%s The file is kept; the image of job %s is stored without a receipt.", error.message, job_id)
        return False, None


def record_expected_image(store: ImageStore, job: Job, run: TaskIdentity) -> None:
    """Write the receipt of a job whose image is about to come to ``store``; what is no receipt is kept as it is.

    :raises FluxStoreConfigurationError: if another process has stored the image of another job in this moment.
    """
    receipts, is_first = SidecarReceiptStore(store), True

    def change(present: Receipt | None) -> Receipt | None:
        nonlocal is_first
        if present is not None and (present.job or {}).get("id") == job.id:
            return None
        if not is_first and present is not None:
            _check_not_replaced(present, job, store)
        is_first = False
        expected = Receipt("submitted", f"job {job.id}", job.model, run=run, job=job.to_dict())
        return expected.with_state("submitted")

    try:
        update(receipts, change)
    except FluxReceiptError as error:
        log.error("%s The file is kept; the image of job %s is stored without a receipt.", error.message, job.id)


def find(store: S3Store, job: Job) -> dict[str, Any] | None:
    """Return the description of this job's image if it lies in ``store`` already; None if nothing does.

    :raises FluxImageExistsError: if something else lies there.
    :raises FluxStoreError: if the store cannot be asked.
    """
    try:
        head = store.head()
    except Exception as error:
        raise FluxStoreError(f"S3 could not be asked for {store.uri} ({error}).", job_id=job.id) from error
    if head is None:
        return None
    metadata = {name.lower(): value for name, value in head.get("Metadata", {}).items()}
    if job_in(head) != metadata_text(job.id):
        if store.replace:
            return None
        raise FluxImageExistsError(
            f"{store.uri} exists and is not the image of job {job.id}; replace=False keeps it.", job_id=job.id
        )
    return {
        **describe_job(job),
        "model": metadata.get("model", job.model),
        "status": "Ready",
        "seed": _whole(metadata.get("seed")),
        "duration": None,
        "uri": store.uri,
        "format": metadata.get("format"),
        "width": _whole(metadata.get("width")),
        "height": _whole(metadata.get("height")),
        "bytes": head.get("ContentLength"),
        "sha256": metadata["sha256"],
        "content_type": head.get("ContentType"),
    }


def _whole(text: str | None) -> int | None:
    return int(text) if text and text.lstrip("-").isdigit() else None
