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
from urllib.parse import urlsplit

from airflow.configuration import conf

from airflow_provider_flux.images.capture import MAX_BYTES
from airflow_provider_flux.images.receipts import MAX_BYTES as MAX_RECEIPT
from airflow_provider_flux.images.receipts import FluxReceiptError, Receipt, read_receipt
from airflow_provider_flux.images.stores import Store, open_store
from airflow_provider_flux.plugins.images import Image, Returned, manifest_of, read_manifest

log = logging.getLogger(__name__)
T = TypeVar("T")

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
        raise UnreadableError("The store does not answer.") from None


def read_image(image: Image) -> bytes:
    """Return the stored image's bytes, which are those that the task stored.

    :raises UnreadableError: if they are not, or cannot be read.
    """
    if image.uri is None:
        raise UnreadableError("The task's result names no stored image.")
    data = _read(image.uri, "The image", MAX_BYTES)
    if hashlib.sha256(data).hexdigest() != image.sha256:
        raise UnreadableError("What lies there is no longer the image that the task stored.")
    return data


def read_recipe(image: Image) -> Receipt | None:
    """Return the receipt beside the image; None if there is none about this job.

    :raises UnreadableError: if it cannot be read.
    """
    if image.uri is None:
        return None
    uri = image.uri

    def read() -> Receipt | None:
        data = _open(uri).read_note(MAX_RECEIPT)
        return None if data is None else read_receipt(data, "The receipt")

    try:
        receipt = _readable(read, "The receipt", uri)
    except FluxReceiptError:
        return None
    return receipt if receipt and (receipt.job or {}).get("id") == image.job_id else None


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

    :raises UnreadableError: if it cannot be read.
    """
    uri = manifest_of(returned.value)
    # A task that ran again may have written another manifest to the same place.
    return await in_thread(_manifest, uri, str(returned.at)) if uri else None


@functools.lru_cache(maxsize=4)
def _manifest(uri: str, _version: str) -> dict[int, dict[str, Any]]:
    try:
        return read_manifest(_read(uri, "The manifest", MAX_BYTES))
    except (ValueError, RecursionError):
        raise UnreadableError("What lies in the manifest's place is no manifest.") from None


def _read(uri: str, what: str, max_bytes: int) -> bytes:
    file = _Capped(max_bytes)
    _readable(lambda: _open(uri).get(file), what, uri)
    return file.getvalue()


def _readable(read: Callable[[], T], what: str, uri: str) -> T:
    try:
        return read()
    except (UnreadableError, FluxReceiptError):
        raise
    except Exception as error:
        # Each store's library has errors of its own, and their words may tell of its inside.
        log.warning("%s at %s could not be read: %s: %s", what, uri, type(error).__name__, error)
        raise UnreadableError(
            f"{what} could not be read by the API server ({type(error).__name__}); its log says more."
        ) from error


class _Capped(io.BytesIO):
    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max = max_bytes

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > self._max:
            raise UnreadableError(f"What lies there is larger than {self._max} bytes.")
        return super().write(data)


def _open(uri: str) -> Store:
    conn_id = conf.get("flux", "gallery_aws_conn_id", fallback="aws_default") or None
    parts = urlsplit(uri)
    if parts.scheme != "s3":
        return open_store(uri, conn_id)
    named = parts.netloc.rpartition("@")[0]
    return open_store(uri, conn_id, hook=_s3_hook(named or conn_id, int(time.monotonic() / _CLIENT_LIFE)))


@functools.lru_cache(maxsize=4)
def _s3_hook(conn_id: str | None, _age: int) -> Any:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.config import Config

    patience = Config(connect_timeout=3, read_timeout=10, retries={"total_max_attempts": 2})
    return S3Hook(aws_conn_id=conn_id, config=S3Hook(aws_conn_id=conn_id).config.merge(patience))
