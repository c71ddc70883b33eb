"""The metadata that an image carries in an object store: written with it, and read back to recognise it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from airflow_provider_flux.exceptions import FluxImageExistsError, FluxStoreError
from airflow_provider_flux.receipts.receipt import DIGITAL_SOURCE_TYPE
from airflow_provider_flux.results import ImageResult
from airflow_provider_flux.storage.s3 import S3Store, job_in, metadata_text

if TYPE_CHECKING:
    from airflow_provider_flux.client.jobs import Job

_BOOLEANS: dict[str | None, bool] = {"true": True, "false": False}


def object_metadata(image: ImageResult) -> dict[str, str]:
    """Return the metadata to store ``image`` with."""
    metadata = {
        "job-id": image.id,
        "model": image.model,
        "seed": image.seed,
        "sha256": image.sha256,
        "width": image.width,
        "height": image.height,
        "format": image.format,
        "content-credentials": None if image.content_credentials is None else json.dumps(image.content_credentials),
        **DIGITAL_SOURCE_TYPE,
    }
    return {name: str(value) for name, value in metadata.items() if value is not None}


def find_uploaded_image(store: S3Store, job: Job) -> ImageResult | None:
    """Return the image of this job if it is already stored in ``store``; None if it is not.

    :raises FluxImageExistsError: if another object is stored there and may not be replaced.
    :raises FluxStoreError: if the store cannot be queried.
    """
    try:
        head = store.head()
    except Exception as error:
        raise FluxStoreError(f"S3 could not be queried for {store.uri} ({error}).", job_id=job.id) from error
    if head is None:
        return None
    metadata = {name.lower(): value for name, value in head.get("Metadata", {}).items()}
    if job_in(head) != metadata_text(job.id):
        if store.replace:
            return None
        raise FluxImageExistsError(
            f"{store.uri} exists and is not the image of job {job.id}; replace=False keeps it.", job_id=job.id
        )
    numbers = {name: _integer(metadata.get(name)) for name in ("seed", "width", "height")}
    return ImageResult.from_dict(
        {
            **ImageResult.of_job(job).to_dict(),
            **numbers,
            "format": metadata.get("format"),
            "sha256": metadata["sha256"],
            "model": metadata.get("model", job.model),
            "status": "Ready",
            "uri": store.uri,
            "bytes": head.get("ContentLength"),
            "content_type": head.get("ContentType"),
            "content_credentials": _BOOLEANS.get(metadata.get("content-credentials")),
        }
    )


def _integer(text: str | None) -> int | None:
    return int(text) if text and text.lstrip("-").isdigit() else None
