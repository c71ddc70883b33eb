"""Read images, receipts and manifests from the store, for the gallery: bounded in size, in time and in number.

A store that hangs must hold neither Airflow's event loop nor the threads that Airflow answers its API with, so
reading has a few threads of its own.
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
import io
import logging
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from airflow.configuration import conf

from airflow_provider_flux.exceptions import FluxReceiptError
from airflow_provider_flux.gallery.results import Image, Returned, manifest_of, read_manifest
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.receipts.receipt import MAX_BYTES as MAX_RECEIPT
from airflow_provider_flux.receipts.receipt import Receipt, read_receipt
from airflow_provider_flux.storage import open_store
from airflow_provider_flux.storage.base import ImageStore
from airflow_provider_flux.storage.uris import read_uri

log = logging.getLogger(__name__)
T = TypeVar("T")

# One for all that can be wrong: who names a place without knowing what lies there learns nothing about it.
_NOT_READ = "{} could not be read by the API server, or is not the one that the task wrote; the server's log says more."
TIMEOUT = 30.0
# So long one client of S3 is used, in seconds: making one takes a third of a second.
_CLIENT_LIFE = 300
_pool = ThreadPoolExecutor(8, thread_name_prefix="flux-gallery")


class UnreadableError(Exception):
    """Something could not be read; the message is for the person who looks at the gallery."""


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """Run ``function`` in one of our threads.

    :raises UnreadableError: if it takes too long.
    """
    loop = asyncio.get_running_loop()
    try:
        return await asyncio.wait_for(loop.run_in_executor(_pool, functools.partial(function, *arguments)), TIMEOUT)
    except TimeoutError:
        log.warning("The store does not answer: %s took more than %g s.", function.__name__, TIMEOUT)
        raise UnreadableError("The store does not answer.") from None


def read_image(image: Image) -> bytes:
    """Return the stored image's bytes, which are those that the task stored.

    :raises UnreadableError: if they are not, or cannot be read.
    """
    if image.uri is None:
        raise UnreadableError("The task's result names no stored image.")
    return _read(image.uri, image.sha256, "The image")


def read_recipe(image: Image) -> Receipt | None:
    """Return the receipt beside the image, or beside its place; None if there is none about this job.

    :raises UnreadableError: if it cannot be read.
    """
    if image.place is None:
        return None
    try:
        note = _open(image.place).read_sidecar(MAX_RECEIPT)
        receipt = None if note is None else read_receipt(note.data, "The receipt")
    except FluxReceiptError:
        return None
    except Exception as error:
        _log(error, f"{image.place}.json")
        raise UnreadableError("The receipt could not be read by the API server; its log says more.") from error
    return receipt if receipt and receipt.job and receipt.job.id == image.job_id else None


def content_type_of(data: bytes) -> tuple[str, str]:
    """Return the content type of an image, and the end of its file name, as its first bytes tell.

    :raises UnreadableError: if it is no PNG, JPEG or WebP image.
    """
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png", "png"
    if data.startswith(b"\xff\xd8\xff"):
        return "image/jpeg", "jpeg"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "image/webp", "webp"
    raise UnreadableError("What lies there is no PNG, JPEG or WebP image.")


async def manifest(returned: Returned) -> dict[int, dict[str, Any]] | None:
    """Return the lines of the manifest that a batch returned, by index; None if it is no batch's result.

    :raises UnreadableError: if it cannot be read, or is not the one that the task wrote.
    """
    found = manifest_of(returned.value)
    if found is None:
        return None
    try:
        return await in_thread(_manifest, *found)
    except UnreadableError:
        raise UnreadableError(_NOT_READ.format("The manifest")) from None


@functools.lru_cache(maxsize=4)
def _manifest(uri: str, sha256: str | None) -> dict[int, dict[str, Any]]:
    data = _read(uri, sha256, "The manifest")
    try:
        return read_manifest(data, uri)
    except (ValueError, RecursionError) as error:
        _log(error, uri)
        raise UnreadableError("What lies in the manifest's place is no manifest.") from error


def _read(uri: str, sha256: str | None, what: str) -> bytes:
    try:
        if sha256 is None:
            raise ValueError("the task's result tells no SHA-256 of it")
        file = _Capped(MAX_BYTES)
        _open(uri).get(file)
        if hashlib.sha256(file.getvalue()).hexdigest() != sha256:
            raise ValueError("its SHA-256 is another one than the task's result tells")
    except Exception as error:
        # Each store's library has errors of its own, and their words may tell of its inside.
        _log(error, uri)
        raise UnreadableError(_NOT_READ.format(what)) from error
    return file.getvalue()


def _log(error: Exception, uri: str) -> None:
    log.warning("The gallery could not read %r: %s: %s", uri, type(error).__name__, error)


class _Capped(io.BytesIO):
    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max = max_bytes

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._max:
            raise ValueError(f"it is larger than {self._max} bytes")
        return super().write(data)


def _open(uri: str) -> ImageStore:
    conn_id = conf.get("flux", "gallery_aws_conn_id", fallback="aws_default") or None
    place = read_uri(uri)
    if place.scheme != "s3":
        return open_store(uri, conn_id)
    return open_store(uri, conn_id, hook=_s3_hook(place.conn_id or conn_id, int(time.monotonic() / _CLIENT_LIFE)))


@functools.lru_cache(maxsize=4)
def _s3_hook(conn_id: str | None, _age: int) -> Any:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    patience = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2})
    return S3Hook(aws_conn_id=conn_id, config=S3Hook(aws_conn_id=conn_id).config.merge(patience))
