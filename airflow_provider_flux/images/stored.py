"""StoredImage: the stored image that a task's result names, to read it back or to sign an address for it."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.exceptions import FluxBadImageError, FluxError, FluxStoreConfigurationError, FluxStoreError
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.results import ImageResult
from airflow_provider_flux.returned_image import ReturnedImage, find_returned_image
from airflow_provider_flux.storage import ImageStore, open_store
from airflow_provider_flux.storage.capped import CappedFile, FileTooLargeError

_BILLING = "Reading a stored image is not billed."


@dataclass(frozen=True, slots=True)
class StoredImage:
    """An image in a store, as the result of its task describes it.

    :param name: What errors call it.
    :param sha256: Hash of the file, in hex.
    """

    name: str
    store: ImageStore
    sha256: str

    @classmethod
    def of(cls, result: Any, number: Any, aws_conn_id: str | None) -> StoredImage:
        """Return the image that ``result`` and ``number`` name; reads the manifest of a batch.

        :param result: What a FLUX operator returned, a list of that, or an ImageResult.
        :param number: Which image of a batch or list.
        :param aws_conn_id: Airflow connection for S3, unless the image's URI names one.
        :raises ValueError: if they do not name one image that is stored.
        :raises FluxError: if the manifest cannot be read.
        """
        image = find_returned_image(result.to_dict() if isinstance(result, ImageResult) else result, number)
        fields = _manifest_line(image, aws_conn_id) if image.is_in_batch else image.result
        name = f"image {image.number} of the batch" if image.is_in_batch else f"the image of job {fields.get('id')}"
        uri, sha256 = fields.get("uri"), fields.get("sha256")
        if not uri or not sha256:
            reason = f" ({fields['error']})" if fields.get("error") else ""
            raise ValueError(f"{name[0].upper()}{name[1:]} is not stored{reason}.")
        return cls(name, open_store(str(uri), aws_conn_id), str(sha256))

    def read(self, max_bytes: int = MAX_BYTES) -> bytes:
        """Return the file, verified by its hash.

        :raises FluxBadImageError: if it is missing, too large, or not the one that the task stored.
        :raises FluxStoreError: if the store cannot be reached at the moment.
        :raises FluxStoreConfigurationError: if it cannot be read with this configuration.
        """
        file = CappedFile(max_bytes)
        with _store_errors(self.store, self.name):
            self._check_exists()
            self.store.get(file)
        if hashlib.sha256(file.getvalue()).hexdigest() != self.sha256:
            raise FluxBadImageError(
                f"{self.store.uri} is not {self.name} any more (SHA-256 differs).", billing=_BILLING
            )
        return file.getvalue()

    def presigned_url(self, expires: float) -> str:
        """Return an address that shows the file to everybody until it expires.

        :param expires: Seconds.
        :raises ValueError: if the store's addresses do not last so long.
        :raises FluxBadImageError: if the file does not exist.
        :raises FluxStoreConfigurationError: if the store has no such addresses, or not with this configuration.
        """
        longest = self.store.max_presigned_seconds
        if longest is not None and expires > longest:
            raise ValueError(
                f"expires is {expires:g} seconds; a presigned URL of this store ends after {longest} seconds "
                f"({longest / 86400:g} days) at the latest."
            )
        with _store_errors(self.store, self.name):
            self._check_exists()
            return self.store.presigned_url(int(expires))

    def _check_exists(self) -> None:
        if not self.store.exists():
            raise FluxBadImageError(f"{self.store.uri}, {self.name}, does not exist.", billing=_BILLING)


def _manifest_line(image: ReturnedImage, aws_conn_id: str | None) -> Mapping[str, Any]:
    manifest = StoredImage(
        "the batch's manifest",
        open_store(image.result["manifest"], aws_conn_id),
        str(image.result.get("manifest_sha256")),
    )
    for line in manifest.read().splitlines():
        fields: Mapping[str, Any] = json.loads(line)
        if fields["index"] == image.number:
            return fields
    raise ValueError(f"The batch's manifest has no image {image.number}.")


@contextlib.contextmanager
def _store_errors(store: ImageStore, name: str) -> Iterator[None]:
    """Raise errors of a store's library as FLUX errors."""
    try:
        yield
    except FluxError:
        raise
    except FileTooLargeError as error:
        raise FluxBadImageError(f"{store.uri}, {name}: {error}", billing=_BILLING) from error
    except Exception as error:
        if problem := store.misconfiguration(error):
            raise FluxStoreConfigurationError(f"{store.uri} cannot be read ({problem}).", billing=_BILLING) from error
        raise FluxStoreError(
            f"{store.uri} cannot be read ({type(error).__name__}: {error}).", billing=_BILLING
        ) from error
