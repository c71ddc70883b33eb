"""Reading images, receipts and manifests from the store for the gallery, with limits on size, time and concurrency.

A store that hangs must block neither Airflow's event loop nor the threads of Airflow's REST API, so reads have a
thread pool of their own.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import logging
import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from airflow.configuration import conf

from airflow_provider_flux.exceptions import FluxReceiptError
from airflow_provider_flux.gallery.results import (
    GalleryImage,
    ManifestLine,
    ManifestReference,
    TaskResult,
    manifest_reference,
    read_manifest,
)
from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.images import pixels
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.receipts.receipt import MAX_BYTES as MAX_RECEIPT_BYTES
from airflow_provider_flux.receipts.receipt import Receipt, read_receipt
from airflow_provider_flux.storage import open_store
from airflow_provider_flux.storage.base import ImageStore
from airflow_provider_flux.storage.capped import CappedFile
from airflow_provider_flux.storage.uris import read_uri

log = logging.getLogger(__name__)
T = TypeVar("T")

# One text for every failure: a user who names a file must learn nothing about a file that they do not know.
_UNREADABLE = (
    "The API server could not read the {}, or it is not the file that the task stored. See the API server's log."
)
NOT_AN_IMAGE = "The stored file is not an intact PNG, JPEG or WebP image."
TIMEOUT_SECONDS = 30.0
# Making an S3 client takes a third of a second.
_S3_CLIENT_LIFETIME_SECONDS = 300
_pool = ThreadPoolExecutor(8, thread_name_prefix="flux-gallery")


class UnreadableError(Exception):
    """A file could not be read; the message is shown to the user of the gallery."""


class ShutdownError(Exception):
    """The process is ending: nothing more is read."""


async def run_in_pool(function: Callable[..., T], *arguments: Any) -> T:
    """Run ``function`` in the gallery's thread pool.

    :raises UnreadableError: if it takes longer than ``TIMEOUT_SECONDS``.
    :raises ShutdownError: if the process is ending.
    """
    call = submit_to_pool(function, *arguments)
    try:
        return await asyncio.wait_for(asyncio.wrap_future(call), TIMEOUT_SECONDS)
    except TimeoutError:
        log.warning("The store did not respond: %s took more than %g s.", function.__name__, TIMEOUT_SECONDS)
        raise UnreadableError(f"The store did not respond within {TIMEOUT_SECONDS:g} s.") from None


def submit_to_pool(function: Callable[..., T], *arguments: Any) -> Future[T]:
    """Run ``function`` in the gallery's thread pool, for a thread that has no event loop.

    :raises ShutdownError: if the process is ending.
    """
    try:
        return _pool.submit(function, *arguments)
    except RuntimeError as error:
        raise ShutdownError("The process is ending.") from error


def read_image(image: GalleryImage) -> bytes:
    """Return the stored image's bytes, verified by their hash.

    :raises UnreadableError: if they cannot be read or are not those that the task stored.
    """
    if image.uri is None:
        raise UnreadableError("The task's result has no stored image.")
    return _read_verified(image.uri, image.sha256, "image")


def read_image_and_format(image: GalleryImage) -> tuple[bytes, str]:
    """Return the stored image's bytes, and ``"png"``, ``"jpeg"`` or ``"webp"``.

    :raises UnreadableError: if they cannot be read, are not those that the task stored, or are not an image.
    """
    data = read_image(image)
    try:
        return data, pixels.examine(data).format
    except (pixels.NotAnImageError, pixels.BrokenImageError) as error:
        raise UnreadableError(NOT_AN_IMAGE) from error


def read_image_receipt(image: GalleryImage) -> Receipt | None:
    """Return the receipt of the image's job; None if the image has no sidecar, or that of another job.

    :raises UnreadableError: if the sidecar cannot be read.
    """
    receipt = _read_sidecar(image)
    return receipt if receipt is not None and _is_of(receipt, image) else None


def read_new_owner(image: GalleryImage) -> TaskIdentity | None:
    """Return the task whose image has replaced this one at its URI; None if none has, as far as its receipt says.

    The user may not know that task: check that they may read the XComs of its DAG before it is named.

    :raises UnreadableError: if the sidecar cannot be read.
    """
    receipt = _read_sidecar(image)
    is_replaced = receipt is not None and receipt.state == "stored" and not _is_of(receipt, image)
    return receipt.run if receipt is not None and is_replaced else None


def _read_sidecar(image: GalleryImage) -> Receipt | None:
    if image.location is None:
        return None
    try:
        sidecar = _open(image.location).read_sidecar(MAX_RECEIPT_BYTES)
        return None if sidecar is None else read_receipt(sidecar.data, "The receipt")
    except FluxReceiptError:
        return None
    except Exception as error:
        _log_failure(error, f"{image.location}.json")
        raise UnreadableError("The API server could not read the receipt. See the API server's log.") from error


def _is_of(receipt: Receipt, image: GalleryImage) -> bool:
    # Neither has a job if a batch's request was never accepted.
    job_id = receipt.job.id if receipt.job else None
    return job_id == image.job_id


async def read_batch_manifest(result: TaskResult) -> Mapping[int, ManifestLine] | None:
    """Return the lines of a batch's manifest by index; None if ``result`` is not a batch's.

    :raises UnreadableError: if it cannot be read, or is not the one that the task wrote.
    """
    reference = manifest_reference(result.value)
    if reference is None:
        return None
    try:
        return await run_in_pool(_cached_manifest, reference)
    except UnreadableError:
        raise UnreadableError(_UNREADABLE.format("manifest")) from None


@functools.lru_cache(maxsize=4)
def _cached_manifest(reference: ManifestReference) -> Mapping[int, ManifestLine]:
    data = _read_verified(reference.uri, reference.sha256, "manifest")
    try:
        return read_manifest(data, reference.uri)
    except (ValueError, RecursionError) as error:
        _log_failure(error, reference.uri)
        raise UnreadableError("The stored file is not a manifest.") from error


def _read_verified(uri: str, sha256: str | None, name: str) -> bytes:
    try:
        if sha256 is None:
            raise ValueError("the task's result has no SHA-256 of it")
        file = CappedFile(MAX_BYTES)
        _open(uri).get(file)
        if hashlib.sha256(file.getvalue()).hexdigest() != sha256:
            raise ValueError("its SHA-256 differs from the one in the task's result")
    except Exception as error:
        # Each store's library raises errors of its own, and their texts may reveal internals.
        _log_failure(error, uri)
        raise UnreadableError(_UNREADABLE.format(name)) from error
    return file.getvalue()


def _log_failure(error: Exception, uri: str) -> None:
    log.warning("The gallery could not read %r: %s: %s", uri, type(error).__name__, error)


def _open(uri: str) -> ImageStore:
    conn_id = conf.get("flux", "gallery_aws_conn_id", fallback="aws_default") or None
    location = read_uri(uri)
    if location.scheme != "s3":
        return open_store(uri, conn_id)
    age = int(time.monotonic() / _S3_CLIENT_LIFETIME_SECONDS)
    return open_store(uri, conn_id, hook=_s3_hook(location.conn_id or conn_id, age))


@functools.lru_cache(maxsize=4)
def _s3_hook(conn_id: str | None, _age: int) -> Any:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    limits = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2})
    return S3Hook(aws_conn_id=conn_id, config=S3Hook(aws_conn_id=conn_id).config.merge(limits))
