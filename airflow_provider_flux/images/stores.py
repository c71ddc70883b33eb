"""Where images lie: S3 through the amazon provider's S3Hook, any other URI through ObjectStoragePath.

A store holds one image at one URI. It is written whole or not at all.
"""

from __future__ import annotations

import abc
import shutil
import uuid
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import urlsplit

from airflow_provider_flux.client.errors import FluxError

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.sdk import ObjectStoragePath


class FluxStoreUnusableError(FluxError):
    """The place an image should go to cannot be used; found before money is spent."""

    mend = "Correct where the image should go."


class FluxImageExistsError(FluxError):
    """Another object lies where the image should go, and may not be replaced."""

    mend = "Choose another key, or allow to replace it."


class FluxStoreError(FluxError):
    """The image could not be stored, or the store not be reached."""

    retryable = True

    @classmethod
    def _money(cls, job_id: str | None) -> str:
        return f"Job {job_id} is finished and paid for." if job_id else "Nothing was paid."


class Store(abc.ABC):
    """One place for one image."""

    uri: str

    @abc.abstractmethod
    def check(self) -> None:
        """Find out whether an image could be put here.

        :raises FluxStoreUnusableError: if certainly not.
        :raises FluxStoreError: if the store cannot be reached at the moment.
        """

    @abc.abstractmethod
    def put(self, path: Path, content_type: str, metadata: dict[str, str]) -> None:
        """Store the file, whole or not at all, over whatever was there."""

    @abc.abstractmethod
    def get(self, file: BinaryIO) -> None:
        """Write the stored image into ``file``."""


class S3Store(Store):
    """An object in S3.

    :param bucket: Bucket.
    :param key: Key.
    :param aws_conn_id: Airflow connection of the amazon provider; None for boto3's own credentials.
    :param replace: Whether :meth:`put` may overwrite; else it raises FluxImageExistsError.
    :param encrypt: Server-side encryption (AES256).
    :param acl_policy: Canned ACL.
    :param extra_args: Further arguments of the upload (``S3Hook(extra_args=...)``).
    :param verify: TLS verification (``S3Hook(verify=...)``).
    """

    def __init__(
        self,
        bucket: str,
        key: str,
        aws_conn_id: str | None,
        *,
        replace: bool = True,
        encrypt: bool = False,
        acl_policy: str | None = None,
        extra_args: dict[str, Any] | None = None,
        verify: bool | str | None = None,
    ) -> None:
        self.bucket = bucket
        self.key = key
        self.uri = f"s3://{bucket}/{key}"
        self._aws_conn_id = aws_conn_id
        self._replace = replace
        self._encrypt = encrypt
        self._acl_policy = acl_policy
        self._extra_args = extra_args or {}
        self._verify = verify

    @cached_property
    def _hook(self) -> S3Hook:
        return self._hook_with({})

    def _hook_with(self, extra_args: dict[str, Any]) -> S3Hook:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        return S3Hook(
            aws_conn_id=self._aws_conn_id,
            verify=self._verify,
            extra_args=extra_args,
            # Ten threads with a part of the file each would hold it whole in memory.
            transfer_config_args={"use_threads": False},
        )

    def check(self) -> None:
        from boto3.s3.transfer import S3Transfer
        from botocore.exceptions import BotoCoreError, ClientError

        if unknown := sorted(self._extra_args.keys() - set(S3Transfer.ALLOWED_UPLOAD_ARGS)):
            raise FluxStoreUnusableError(f"extra_args has what no S3 upload takes: {', '.join(unknown)}.")
        try:
            self._hook.get_conn().head_bucket(Bucket=self.bucket)
        except ClientError as error:
            # Who may only put objects is refused the look at the bucket; that says nothing about the put.
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                raise FluxStoreUnusableError(f"There is no bucket {self.bucket!r} (for {self.uri}).") from error
        except (TypeError, ValueError) as error:
            raise FluxStoreUnusableError(f"{self.uri} cannot be written: {error}.") from error
        except BotoCoreError as error:
            raise FluxStoreError(f"S3 cannot be reached for {self.uri} ({error}).") from error

    def head(self) -> dict[str, Any] | None:
        """Return S3's description of what lies here; None if nothing does."""
        return self._hook.head_object(self.key, self.bucket)

    def put(self, path: Path, content_type: str, metadata: dict[str, str]) -> None:
        asked = self._extra_args
        extra_args = {
            "ContentType": content_type,
            **asked,
            "Metadata": {**metadata, **asked.get("Metadata", {})},
        }
        hook = self._hook_with(extra_args)
        if not self._replace and hook.check_for_key(self.key, self.bucket):
            raise FluxImageExistsError(f"{self.uri} exists, and replace=False keeps it.")
        with path.open("rb") as file:
            hook.load_file_obj(
                file,
                self.key,
                self.bucket,
                replace=True,
                encrypt=self._encrypt,
                acl_policy=self._acl_policy,
            )

    def get(self, file: BinaryIO) -> None:
        self._hook.get_conn().download_fileobj(self.bucket, self.key, file)


class PathStore(Store):
    """A file at any URI that ObjectStoragePath opens.

    :param path: The path.
    """

    def __init__(self, path: ObjectStoragePath) -> None:
        self.uri = str(path)
        self._path = path

    @property
    def _is_local(self) -> bool:
        return self._path.protocol in ("", "file", "local")

    def check(self) -> None:
        if self._is_local:
            folder = Path(self._path.path).parent
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise FluxStoreUnusableError(f"The folder of {self.uri} cannot be made ({error}).") from error
            return
        try:
            # Loads the filesystem's library and its connection.
            _ = self._path.fs
        except (ValueError, ImportError) as error:
            raise FluxStoreUnusableError(f"{self.uri} cannot be opened ({error}).") from error

    def put(self, path: Path, content_type: str, metadata: dict[str, str]) -> None:
        if not self._is_local:
            self._path.fs.put_file(str(path), self._path.path)
            return
        target = Path(self._path.path)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
        try:
            shutil.copyfile(path, part)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)

    def get(self, file: BinaryIO) -> None:
        with self._path.open("rb") as stored:
            shutil.copyfileobj(stored, file)


def open_store(uri: str, aws_conn_id: str | None) -> Store:
    """Return the store at ``uri``. Touches nothing yet.

    :param uri: ``s3://bucket/key`` (or ``s3://conn_id@bucket/key``), ``file:///path``, or any other URI that
        ObjectStoragePath opens.
    :param aws_conn_id: Airflow connection for S3, unless the URI names one.
    :raises FluxStoreUnusableError: if the URI cannot name an image.
    """
    parts = urlsplit(uri)
    if uri.endswith("/") or not parts.path.strip("/"):
        raise FluxStoreUnusableError(f"{uri!r} names no file.")
    if parts.scheme == "s3":
        conn_id, _, bucket = parts.netloc.rpartition("@")
        if not bucket:
            raise FluxStoreUnusableError(f"{uri!r} names no bucket.")
        # Not parts.path: '?' and '#' are letters like others in a key.
        key = uri.split("://", 1)[1].partition("/")[2]
        return S3Store(bucket, key, conn_id or aws_conn_id)
    if not parts.scheme and not parts.path.startswith("/"):
        raise FluxStoreUnusableError(f"{uri!r} is not a URI like s3://bucket/key.png or file:///folder/x.png.")

    from airflow.sdk import ObjectStoragePath

    try:
        return PathStore(ObjectStoragePath(uri))
    except (ValueError, ImportError) as error:
        raise FluxStoreUnusableError(f"{uri!r} cannot be opened ({error}).") from error
