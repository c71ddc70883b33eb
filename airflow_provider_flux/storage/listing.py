"""The JSON files below a URI, read many at a time: receipts, among others."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Any

from airflow_provider_flux.exceptions import FluxStoreConfigurationError, FluxStoreError
from airflow_provider_flux.storage.s3 import connected_hook
from airflow_provider_flux.storage.uris import PlaceUri, read_uri

SUFFIX = ".json"
_THREADS = 24
_READ_AHEAD = 1000
"""Files that are listed before the first of them is used: a listing may be longer than memory."""


@dataclass(frozen=True, slots=True)
class JsonFile:
    """One file.

    :param data: Its content; None if it cannot be read.
    """

    uri: str
    data: bytes | None


def read_json_files(
    uri: str, aws_conn_id: str | None, max_bytes: int, since: datetime.datetime | None = None
) -> Iterator[JsonFile]:
    """Yield the JSON files in the folder ``uri``, and in its folders.

    :param uri: ``s3://bucket/folder/``, ``file:///folder/``, or any other that ObjectStoragePath opens. It may name its
        connection: ``s3://conn_id@bucket/folder/``. One file is valid, too.
    :param aws_conn_id: Airflow connection for S3, unless the URI names one.
    :param max_bytes: Size in bytes above which a file is left out.
    :param since: Files that were written before are left out, where the store tells.
    :raises FluxStoreConfigurationError: if there is no such place.
    :raises FluxStoreError: if it cannot be listed.
    """
    try:
        place = read_uri(uri)
    except ValueError as error:
        raise FluxStoreConfigurationError(f"{uri!r} is not a URI ({error}).") from None
    if ":" in (place.conn_id or ""):
        raise FluxStoreConfigurationError(
            f"A {place.scheme}:// URI holds credentials before its '@'; name an Airflow connection there instead."
        )
    try:
        if place.scheme == "s3":
            files = _s3_files(place, aws_conn_id, max_bytes, since)
        else:
            files = _path_files(_local_uri(uri, place), max_bytes)
        yield from _read_all(files)
    except (FluxStoreConfigurationError, FluxStoreError):
        raise
    except (ImportError, ValueError) as error:
        raise FluxStoreConfigurationError(f"{uri} cannot be opened ({error}).") from error
    except Exception as error:
        # Each store's library has errors of its own.
        raise FluxStoreError(f"{uri} cannot be listed ({type(error).__name__}: {error}).") from error


def _read_all(files: Iterator[Callable[[], JsonFile]]) -> Iterator[JsonFile]:
    with ThreadPoolExecutor(_THREADS) as pool:
        while some := list(islice(files, _READ_AHEAD)):
            yield from pool.map(lambda read: read(), some)


def _reader(uri: str, read: Callable[[], bytes]) -> Callable[[], JsonFile]:
    def read_file() -> JsonFile:
        try:
            return JsonFile(uri, read())
        except Exception:  # whatever the store raises: the file is counted as unreadable
            return JsonFile(uri, None)

    return read_file


def _s3_files(
    place: PlaceUri, aws_conn_id: str | None, max_bytes: int, since: datetime.datetime | None
) -> Iterator[Callable[[], JsonFile]]:
    if not place.host:
        raise FluxStoreConfigurationError("An s3:// URI needs a bucket: s3://bucket/folder/.")
    client = connected_hook(place.conn_id or aws_conn_id).get_conn()
    folder = place.key.rstrip("/")
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=place.host, Prefix=folder)
    for item in (item for page in pages for item in page.get("Contents", [])):
        key = item["Key"]
        is_in_folder = not folder or key == folder or key.startswith(f"{folder}/")
        is_too_old = since is not None and item["LastModified"] < since
        if is_in_folder and key.endswith(SUFFIX) and item["Size"] <= max_bytes and not is_too_old:
            yield _reader(f"s3://{place.host}/{key}", partial(_get, client, place.host, key))


def _get(client: Any, bucket: str, key: str) -> bytes:
    with client.get_object(Bucket=bucket, Key=key)["Body"] as body:
        data: bytes = body.read()
    return data


def _path_files(uri: str, max_bytes: int) -> Iterator[Callable[[], JsonFile]]:
    from airflow.sdk import ObjectStoragePath

    root = ObjectStoragePath(uri)
    fs = root.fs
    if not fs.exists(root.path):
        raise FluxStoreConfigurationError(f"{uri} does not exist.")
    for name, info in fs.find(root.path, detail=True).items():
        if name.endswith(SUFFIX) and (info.get("size") or 0) <= max_bytes:
            yield _reader(f"{root.protocol}://{name}", partial(fs.cat_file, name))


def _local_uri(uri: str, place: PlaceUri) -> str:
    if place.scheme not in ("", "file", "local"):
        return uri
    if place.host not in ("", "localhost") or not place.path.startswith("/"):
        raise FluxStoreConfigurationError(f"{uri!r} is not a URI like s3://bucket/folder/ or file:///folder/.")
    return f"file:///{place.path.lstrip('/')}"
