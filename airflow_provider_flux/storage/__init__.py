"""Where images are stored: S3 through the amazon provider's S3Hook, any other URI through ObjectStoragePath."""

from __future__ import annotations

from typing import Any

from airflow_provider_flux.exceptions import FluxStoreConfigurationError
from airflow_provider_flux.storage.base import ImageStore
from airflow_provider_flux.storage.path import PathStore
from airflow_provider_flux.storage.s3 import S3Store
from airflow_provider_flux.storage.uris import has_secret, read_uri

__all__ = ["ImageStore", "open_store"]


def open_store(uri: str, aws_conn_id: str | None, **s3_arguments: Any) -> ImageStore:
    """Return the store at ``uri``. Touches nothing yet.

    :param uri: ``s3://bucket/key``, ``file:///path``, or any other URI that ObjectStoragePath opens. It may name its
        connection: ``s3://conn_id@bucket/key``.
    :param aws_conn_id: Airflow connection for S3, unless the URI names one.
    :param s3_arguments: Further arguments of :class:`S3Store`.
    :raises FluxStoreConfigurationError: if the URI cannot name an image.
    """
    if has_secret(uri):
        # It is not quoted: results and logs show where an image is stored.
        raise FluxStoreConfigurationError(
            "A URI of a store holds credentials (a password before its '@', or a signature such as '?sig='); put them "
            "into an Airflow connection, and name that instead: scheme://conn_id@bucket/name.png."
        )
    try:
        place = read_uri(uri)
    except ValueError as error:
        raise FluxStoreConfigurationError(f"{uri!r} is not a URI ({error}).") from None
    if place.is_azures_own:
        raise FluxStoreConfigurationError(
            f"{uri!r} names an Azure account. Airflow reads what is before the '@' as a connection: write "
            f"{place.scheme}://CONN_ID@CONTAINER/{place.key}, with the account in the connection."
        )
    is_local = place.scheme in ("file", "local")
    if is_local and place.host not in ("", "localhost"):
        raise FluxStoreConfigurationError(f"{uri!r} must have three slashes: {place.scheme}:///folder/name.png.")
    if uri.endswith("/") or not place.path.strip("/"):
        raise FluxStoreConfigurationError(f"{uri!r} names no file.")
    if place.scheme == "s3":
        if not place.host:
            raise FluxStoreConfigurationError(f"{uri!r} names no bucket.")
        conn_id = place.conn_id or aws_conn_id
        return S3Store(place.host, place.key, conn_id, is_conn_in_uri=place.conn_id is not None, **s3_arguments)
    if not place.scheme and (place.host or not place.path.startswith("/")):
        raise FluxStoreConfigurationError(f"{uri!r} is not a URI like s3://bucket/key.png or file:///folder/x.png.")
    if uri.endswith(("?", "#")) or set(uri) & set("\t\r\n"):
        raise FluxStoreConfigurationError(
            f"{uri!r} contains characters that ObjectStoragePath drops, such as '?' at the end."
        )

    from airflow.sdk import ObjectStoragePath

    try:
        if is_local:
            # ObjectStoragePath takes 'localhost', and a second slash, for a folder of the working directory.
            conn = f"{place.conn_id}@" if place.conn_id else ""
            uri = f"{place.scheme}://{conn}/{place.path.lstrip('/')}"
        return PathStore(ObjectStoragePath(uri))
    except (ValueError, ImportError) as error:
        raise FluxStoreConfigurationError(f"{uri!r} cannot be opened ({error}).") from error
