"""Input images of a request: read where they are stored, checked, and sent in the encoding that the API accepts.

Until the request is sent, a short token stands for each image: its URL, the hash of its bytes, or the job that made
it. So attempts of a task can be compared without reading images again, and receipts stay small.
"""

from __future__ import annotations

import base64
import hashlib
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote_to_bytes

from airflow_provider_flux.arguments import is_unset, parse_list, parse_mapping
from airflow_provider_flux.client.catalogue.constraints import ImageToken
from airflow_provider_flux.client.catalogue.models import MODELS
from airflow_provider_flux.client.catalogue.schema import BASE64, URL, InputLimits
from airflow_provider_flux.client.catalogue.validation import image_encodings, parameters_of
from airflow_provider_flux.client.jobs import job_from
from airflow_provider_flux.exceptions import (
    FluxBadImageError,
    FluxBadRequestError,
    FluxError,
    FluxServiceError,
    FluxStoreError,
)
from airflow_provider_flux.images import pixels
from airflow_provider_flux.storage import open_store
from airflow_provider_flux.storage.capped import CappedFile, FileTooLargeError

if TYPE_CHECKING:
    from airflow_provider_flux.client.client import FluxClient
    from airflow_provider_flux.client.jobs import Job

MAX_BYTES = 20 * 1024 * 1024
"""Largest input image in bytes, as documented at https://docs.bfl.ml."""
INPUT_JOB_TIMEOUT = 600.0
"""Seconds to wait for an input image whose job may still run."""

_TOO_LARGE = f"is larger than {MAX_BYTES // 1024**2} MB"
_WEB = ("http://", "https://")

# A batch fills its requests in threads, and Airflow 3.1 mixes up the answers if two of them look up a connection.
_one_at_a_time = threading.Lock()


class InputImages:
    """The input images of one request.

    Each is given as URL, ``data:`` URI, base64, URI of an object store or file (``s3://bucket/key.png``,
    ``file:///folder/x.png``), or as the result of an earlier FLUX task, stored or not. Base64 may be of the standard or
    the URL-safe alphabet, with or without padding, and broken into lines.

    The bytes of an image are sent as they are: neither rotated nor encoded again, with all their metadata. A mask is
    compared with its image by the sizes at which both are displayed: the photo that a phone stores lying on its side,
    with an EXIF orientation, takes an upright mask.

    :param model: The model that is asked.
    :param client: The client of the API that is asked.
    :param aws_conn_id: Airflow connection for ``s3://``.
    :param unread: Leave images that lie in a store unread; only to find out what is wrong with a request.
    """

    def __init__(self, model: str, client: FluxClient, aws_conn_id: str | None, unread: bool = False) -> None:
        self._model = model
        self._client = client
        self._aws_conn_id = aws_conn_id
        self._unread = unread
        self._limits = MODELS[model].inputs if model in MODELS else InputLimits()
        self._readers: dict[str, Callable[[], bytes]] = {}
        self._sizes: dict[str, tuple[int, int]] = {}

    def tokenize(self, fields: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
        """Return ``fields`` with a token for each input image, and the problems of those that are invalid.

        :raises FluxStoreError: if a store fails or cannot be reached; nothing was paid.
        """
        named, problems = dict(fields), []
        for name, value in fields.items():
            if self._forms(name, fields) is None or is_unset(value):
                continue
            try:
                named[name] = self._tokens(name, value)
            except ValueError as error:
                problems.append(f"{name} {error}")
                named[name] = ImageToken("")
        return named, problems

    def embed(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Return the body to send: ``request`` with the images themselves.

        :raises FluxBadRequestError: if one cannot be used; nothing was paid.
        :raises FluxStoreError: if a store fails or cannot be reached; nothing was paid.
        """
        body = dict(request)
        for name, value in request.items():
            if (forms := self._forms(name, request)) is None:
                continue
            try:
                body[name] = (
                    [self._encode(token, forms) for token in value]
                    if isinstance(value, list)
                    else self._encode(value, forms)
                )
            except ValueError as error:
                raise FluxBadRequestError(f"{name} {error}.") from None
        self._check_equal_sizes(request)
        return body

    def _check_equal_sizes(self, request: Mapping[str, Any]) -> None:
        for name, parameter in parameters_of(self._model).items():
            if (other := parameter.same_size_as) is None:
                continue
            ours, theirs = (self._sizes.get(str(request.get(field))) for field in (name, other))
            if ours and theirs and ours != theirs:
                raise FluxBadRequestError(f"{name} is {ours[0]}x{ours[1]}, but {other} is {theirs[0]}x{theirs[1]}.")

    def megapixels(self, request: Mapping[str, Any]) -> float | None:
        """Return the size of all images of a tokenized request, in megapixels of 1024 x 1024.

        :return: None if the size of one is unknown: a URL, or an image that is not read yet.
        """
        tokens = [
            token
            for value in request.values()
            for token in (value if isinstance(value, list) else [value])
            if isinstance(token, ImageToken)
        ]
        if not all(token in self._sizes for token in tokens):
            return None
        return sum(width * height for width, height in map(self._sizes.__getitem__, tokens)) / 1024**2

    def _forms(self, name: str, fields: Mapping[str, Any]) -> tuple[str, ...] | None:
        return image_encodings(self._model, name, self._client.endpoint.gateway, fields)

    def _tokens(self, name: str, value: Any) -> ImageToken | list[ImageToken]:
        if (listed := parse_list(value)) is not None:
            if name != "images":
                raise ValueError(f"must be one image, not a list of {len(listed)}")
            return [self._token(item) for item in listed]
        return [self._token(value)] if name == "images" else self._token(value)

    def _token(self, value: Any) -> ImageToken:
        if (result := parse_mapping(value)) is not None:
            return self._token_of_result(result)
        if not isinstance(value, str):
            raise ValueError(f"must be one image, not a {type(value).__name__}")
        text = value.strip()
        if text.lower().startswith(_WEB):
            self._readers[text] = lambda: self._read_url(text)
            return ImageToken(text)
        if text[:5].lower() == "data:":
            return self._keep(_read_data_uri(text))
        if "://" in text[:64]:
            return ImageToken(f"unread:{text}") if self._unread else self._keep(self._read_store(text))
        try:
            return self._keep(_decode(text))
        except ValueError:
            if self._model in MODELS:
                raise
            # The name of an asset, or what else a model takes that is not known here.
            return ImageToken(value)

    def _token_of_result(self, result: Mapping[str, Any]) -> ImageToken:
        """Return the token of an earlier task's image, which is read only if the request is sent."""
        uri, sha256 = result.get("uri"), result.get("sha256")
        if isinstance(uri, str) and isinstance(sha256, str):
            token = ImageToken(f"sha256:{sha256}")
            self._readers[token] = lambda: self._read_stored(uri, sha256)
        else:
            job = job_from(result)
            token = ImageToken(f"job:{job.id}")
            self._readers[token] = lambda: self._read_job(job)
        return token

    def _keep(self, data: bytes) -> ImageToken:
        token = ImageToken(f"sha256:{hashlib.sha256(data).hexdigest()}")
        _, self._sizes[token] = _check(data, self._limits)
        self._readers[token] = lambda: data
        return token

    def _encode(self, token: str, forms: tuple[str, ...]) -> str:
        """Return the image in the encoding that the API accepts."""
        if token not in self._readers or (token.lower().startswith(_WEB) and URL in forms):
            return str(token)
        data = self._readers[token]()
        content_type, self._sizes[token] = _check(data, self._limits)
        text = base64.b64encode(data).decode()
        return text if forms[:1] == (BASE64,) else f"data:{content_type};base64,{text}"

    def _read_store(self, uri: str) -> bytes:
        file = CappedFile(MAX_BYTES)
        try:
            store = open_store(uri, self._aws_conn_id)
        except FluxError as error:
            raise ValueError(f"cannot be read: {error.message}") from None
        try:
            with _one_at_a_time:
                store.get(file)
        except FileTooLargeError:
            raise ValueError(_TOO_LARGE) from None
        except Exception as error:
            if _is_missing(error):
                raise ValueError(f"cannot be read: {uri} does not exist") from None
            # Credentials are missing, say, or a filesystem that no provider brings: no retry brings them.
            if problem := store.misconfiguration(error):
                raise ValueError(f"cannot be read: {uri} ({problem})") from None
            raise FluxStoreError(f"The input image {uri} cannot be read ({type(error).__name__}: {error}).") from error
        return file.getvalue()

    def _read_stored(self, uri: str, sha256: str) -> bytes:
        data = self._read_store(uri)
        if hashlib.sha256(data).hexdigest() != sha256:
            raise ValueError(f"is no longer the image that the earlier task stored at {uri}")
        return data

    def _read_job(self, job: Job) -> bytes:
        from airflow_provider_flux.images.download import download_job_image

        with tempfile.TemporaryDirectory(prefix="flux-") as folder:
            path = Path(folder) / "image"
            try:
                download_job_image(self._client, job, path, INPUT_JOB_TIMEOUT, MAX_BYTES)
            except FluxError as error:
                if not error.retryable:
                    raise ValueError(f"cannot be fetched: {error.message}") from None
                raise FluxServiceError(f"An input image cannot be fetched: {error.message}") from error
            return path.read_bytes()

    def _read_url(self, url: str) -> bytes:
        file = CappedFile(MAX_BYTES)
        try:
            with self._client.fetch(url, None) as delivery:
                for chunk in delivery.chunks:
                    file.write(chunk)
        except FileTooLargeError:
            raise ValueError(_TOO_LARGE) from None
        except FluxBadImageError as error:
            raise ValueError(f"cannot be fetched: {error.message}") from None
        except FluxServiceError as error:
            raise FluxServiceError(error.message) from error
        return file.getvalue()


def _is_missing(error: Exception) -> bool:
    """Return whether the error means that the file or its bucket does not exist, for files and for boto3."""
    answer = getattr(error, "response", None)
    if isinstance(answer, Mapping):
        return answer.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404
    return isinstance(error, (FileNotFoundError, NotADirectoryError, IsADirectoryError))


def _read_data_uri(text: str) -> bytes:
    head, comma, data = text.partition(",")
    if not comma:
        raise ValueError("is a data: URI without data")
    raw = unquote_to_bytes(data)
    return _decode(raw.decode("latin-1")) if head.rstrip().lower().endswith(";base64") else raw


def _decode(text: str) -> bytes:
    """Decode base64 of either alphabet, with or without padding or line breaks."""
    digits = "".join(text.split()).rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except ValueError:
        raise ValueError(
            "is neither a URL, a data: URI, base64, a URI like s3://bucket/key.png, nor what a FLUX task returned"
        ) from None


def _check(data: bytes, limits: InputLimits) -> tuple[str, tuple[int, int]]:
    """Return MIME type, and width and height in pixels as displayed, of an image that the API accepts.

    :raises ValueError: if it does not take it.
    """
    if len(data) > MAX_BYTES:
        raise ValueError(_TOO_LARGE)
    try:
        picture = pixels.examine(data)
        width, height = picture.displayed
        if width * height > limits.max_pixels:
            raise ValueError(f"is {width}x{height}, more than {limits.max_pixels // 1_000_000} megapixels")
        if min(width, height) < limits.min_side:
            raise ValueError(f"is {width}x{height}; each side must have {limits.min_side} pixels or more")
        picture.decode()
    except pixels.NotAnImageError:
        raise ValueError("is not a PNG, JPEG or WebP image") from None
    except pixels.BrokenImageError:
        raise ValueError("is a broken or truncated image") from None
    return picture.content_type, picture.displayed
