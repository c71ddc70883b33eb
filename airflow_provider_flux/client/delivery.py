"""The delivery of an image: what a delivery host's response means, and how long the image may take."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass

from airflow_provider_flux.client.url_safety import decode_data_url, image_label
from airflow_provider_flux.exceptions import FluxBadImageError, FluxImageExpiredError, FluxServiceError

DOWNLOAD_TIMEOUT = 300.0
"""Seconds that one download may take: half of a URL's lifetime, which leaves time for another attempt."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """An image while it is downloaded.

    :param content_type: The declared content type.
    :param chunks: The image's bytes in pieces.
    """

    content_type: str
    chunks: Iterator[bytes]


def delivery_from_data_url(url: str, job_id: str | None) -> Delivery:
    """Return the image that a ``data:`` URL contains.

    :raises FluxBadImageError: if it cannot be decoded.
    """
    try:
        content_type, data = decode_data_url(url)
    except ValueError as error:
        raise FluxBadImageError(
            f"The data: URL of {image_label(job_id)} cannot be decoded ({error}).", job_id=job_id
        ) from error
    return Delivery(content_type, iter([data]))


def check_delivery(status_code: int, content_range: str, job_id: str | None) -> None:
    """Check that a delivery host's response contains the whole image.

    :param content_range: The Content-Range header; empty if there is none.
    :raises FluxImageExpiredError: if the URL has expired.
    :raises FluxServiceError: if the host failed; a retry can succeed.
    :raises FluxBadImageError: if the response is not the whole image.
    """
    image = image_label(job_id)
    if status_code in (200, 203) or (status_code == 206 and _is_whole(content_range)):
        return
    if status_code == 206:
        raise FluxBadImageError(
            f"The delivery host sent only a part of {image} (HTTP 206, Content-Range: {content_range[:60]!r}).",
            job_id=job_id,
        )
    if status_code in (401, 403, 404, 410):
        raise FluxImageExpiredError(f"The URL of {image} has expired (HTTP {status_code}).", job_id=job_id)
    if status_code >= 500 or status_code in (408, 425, 429):
        raise delivery_error(f"The delivery host failed for {image} (HTTP {status_code}).", job_id)
    raise FluxBadImageError(f"The delivery host did not return {image} (HTTP {status_code}).", job_id=job_id)


def limit_duration(chunks: Iterator[bytes], job_id: str | None) -> Iterator[bytes]:
    """Yield the pieces of an image for up to ``DOWNLOAD_TIMEOUT``: no read timeout ends a slow but steady download.

    :raises FluxServiceError: if it takes longer.
    """
    deadline = time.monotonic() + DOWNLOAD_TIMEOUT
    for chunk in chunks:
        yield chunk
        if time.monotonic() > deadline:
            raise delivery_error(
                f"Downloading {image_label(job_id)} took longer than {DOWNLOAD_TIMEOUT:.0f} s.", job_id
            )


def delivery_error(message: str, job_id: str | None) -> FluxServiceError:
    """Return the error for a download that failed; unlike another request's error, it says that the job was billed."""
    billing = None if job_id is None else FluxBadImageError.billing_note(job_id)
    return FluxServiceError(message, job_id=job_id, billing=billing)


def _is_whole(content_range: str) -> bool:
    match = re.fullmatch(r"\s*bytes\s+0\s*-\s*(\d+)\s*/\s*(\d+)\s*", content_range, re.IGNORECASE)
    return match is not None and int(match[1]) + 1 == int(match[2])
