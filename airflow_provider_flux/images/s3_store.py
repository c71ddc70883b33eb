"""S3Store: an image in S3, through the amazon provider's S3Hook."""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from airflow_provider_flux.images.stores import (
    FluxImageExistsError,
    FluxStoreError,
    FluxStoreUnusableError,
    Note,
    NoteConflictError,
    Store,
)

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

log = logging.getLogger(__name__)

# What the image's upload and the note beside it share: who may read it, with which key. The rest describes the image.
_SHARED = (
    "ServerSideEncryption",
    "SSEKMSKeyId",
    "SSEKMSEncryptionContext",
    "BucketKeyEnabled",
    "ExpectedBucketOwner",
    "RequestPayer",
)
_LONGEST_KEY = 1024
_LIFE = 300
"""Seconds for which a client is kept: what its credentials may do can change."""

# A key that the customer keeps is needed to read, too.
_CUSTOMER_KEY = ("SSECustomerAlgorithm", "SSECustomerKey", "SSECustomerKeyMD5")
# A note holds the prompt: the world may see the image, not what it was made of.
_PUBLIC_ACLS = ("public-read", "public-read-write", "authenticated-read")

_unconditional: set[tuple[str, str | None]] = set()
"""Buckets, each with its connection, whose server refuses conditional writes, as far as this process knows."""


def metadata_text(value: Any) -> str:
    """Return ``value`` as S3 takes it for metadata, which is sent as headers: quoted unless it is plain ASCII."""
    text = str(value)
    return text if text.isascii() and text.isprintable() else quote(text)


def job_in(head: dict[str, Any]) -> str | None:
    """Return the job whose image S3 describes, as its metadata has it; None if it is nobody's."""
    metadata = {name.lower(): value for name, value in head.get("Metadata", {}).items()}
    return metadata.get("job-id") if "sha256" in metadata else None


def _new_hook(aws_conn_id: str | None, verify: bool | str | None, extra_args: dict[str, Any]) -> S3Hook:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    return S3Hook(
        aws_conn_id=aws_conn_id,
        verify=verify,
        extra_args=extra_args,
        # One request that reads the file as it goes; parts would be held in memory, and left behind by a crash.
        transfer_config_args={"use_threads": False, "multipart_threshold": 1024**3},
    )


def _kept_hook(aws_conn_id: str | None, verify: bool | str | None) -> S3Hook:
    """Return a hook whose client this process keeps: for minutes, and for as long as the connection is the same."""
    from airflow.sdk import BaseHook

    connection: Any = None
    if aws_conn_id is not None:
        with contextlib.suppress(Exception):  # the hook has words of its own for it
            connection = BaseHook.get_connection(aws_conn_id)
    identity = connection and (connection.login, connection.password, connection.host, connection.extra)
    return _hook_of(aws_conn_id, verify, identity, int(time.monotonic() / _LIFE))


@lru_cache(maxsize=16)
def _hook_of(aws_conn_id: str | None, verify: bool | str | None, _identity: Any, _age: int) -> S3Hook:
    return _new_hook(aws_conn_id, verify, {})


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
    :param hook: A hook whose client is used, since each makes one of its own.
    :param keep_client: Use a client that this process keeps for some minutes, for a process that stores many images.
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
        hook: S3Hook | None = None,
        keep_client: bool = False,
    ) -> None:
        self.bucket = bucket
        self.key = key
        self.uri = f"s3://{bucket}/{key}"
        self._aws_conn_id = aws_conn_id
        self.replace = replace
        self._encrypt = encrypt
        self._acl_policy = acl_policy
        self._extra_args = extra_args or {}
        self._verify = verify
        self._shared_hook = hook
        self._keep_client = keep_client

    @cached_property
    def _hook(self) -> S3Hook:
        if self._keep_client:
            return _kept_hook(self._aws_conn_id, self._verify)
        return self._shared_hook or _new_hook(self._aws_conn_id, self._verify, {})

    def _writer(self, extra_args: dict[str, Any]) -> S3Hook:
        hook = _new_hook(self._aws_conn_id, self._verify, extra_args)
        # S3Hook takes these arguments when it is made; a client of its own would cost 0.3 s and 12 MB each time, and
        # a look at the connection a request to Airflow and a line in the log.
        hook.conn, hook.conn_config = self._hook.get_conn(), self._hook.conn_config
        return hook

    def check(self) -> None:
        from boto3.s3.transfer import S3Transfer
        from botocore.exceptions import BotoCoreError, ClientError, ParamValidationError

        if (said := self.name_problem()) is not None:
            raise FluxStoreUnusableError(said)
        if unknown := sorted(self._extra_args.keys() - set(S3Transfer.ALLOWED_UPLOAD_ARGS)):
            raise FluxStoreUnusableError(f"extra_args has what no S3 upload takes: {', '.join(unknown)}.")
        if not isinstance(self._extra_args.get("Metadata") or {}, dict):
            raise FluxStoreUnusableError("extra_args is wrong: its Metadata must be a dict.")
        try:
            self._hook.get_conn().head_bucket(Bucket=self.bucket)
        except ClientError as error:
            code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code == 404:
                raise FluxStoreUnusableError(f"There is no bucket {self.bucket!r} (for {self.uri}).") from error
            # Who may only put objects is refused the look at the bucket; that says nothing about the put.
            if code != 403:
                raise FluxStoreError(f"S3 refuses {self.uri} ({error}).") from error
            self._check_credentials()
        except (TypeError, ValueError, ParamValidationError) as error:
            raise FluxStoreUnusableError(f"{self.uri} cannot be written: {error}.") from error
        except BotoCoreError as error:
            raise FluxStoreError(f"S3 cannot be reached for {self.uri} ({error}).") from error

    def name_problem(self) -> str | None:
        if len(f"{self.key}.json".encode()) > _LONGEST_KEY:
            return f"The key of {self.uri} is longer than the {_LONGEST_KEY} bytes that S3 takes, with its receipt's."
        if ".." in self.key.split("/"):
            return f"The key of {self.uri} has a part '..', which S3 servers refuse."
        return None

    def _check_credentials(self) -> None:
        """Tell a key that is wrong from one that may do little; only a request with a body in its answer can."""
        from botocore.exceptions import ClientError

        try:
            self._hook.get_conn().list_objects_v2(Bucket=self.bucket, MaxKeys=1)
        except ClientError as error:
            code = error.response.get("Error", {}).get("Code")
            if code != "AccessDenied":
                raise FluxStoreUnusableError(f"S3 refuses the credentials for {self.uri} ({code}).") from error

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self._extra_args[name] for name in names if name in self._extra_args}

    def head(self) -> dict[str, Any] | None:
        """Return S3's description of what lies here; None if nothing does."""
        from botocore.exceptions import ClientError

        try:
            return self._hook.get_conn().head_object(Bucket=self.bucket, Key=self.key, **self._given(_CUSTOMER_KEY))
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return None
            raise

    def beside(self, name: str) -> S3Store:
        other = copy.copy(self)
        other.key = f"{self.key.rpartition('/')[0]}/{name}".lstrip("/")
        other.uri = f"s3://{self.bucket}/{other.key}"
        return other

    def put(self, path: Path, content_type: str, metadata: dict[str, str]) -> None:
        # Ours come last: they tell a retry that the image is its own.
        told = {**(self._extra_args.get("Metadata") or {}), **metadata}
        told = {name: metadata_text(value) for name, value in told.items()}
        extra_args = {"ContentType": content_type, **self._extra_args, "Metadata": told}
        hook = self._writer(extra_args)
        if not self.replace and (head := self.head()) is not None:
            job_id = job_in(head)
            if job_id is None or job_id != told.get("job-id"):
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
        key = self._given(_CUSTOMER_KEY)
        self._hook.get_conn().download_fileobj(self.bucket, self.key, file, ExtraArgs=key or None)

    def holds(self, size: int, sha256: str) -> bool:
        head = self.head() or {}
        told = {name.lower(): value for name, value in head.get("Metadata", {}).items()}
        return head.get("ContentLength") == size and told.get("sha256") == sha256

    def read_note(self, max_bytes: int) -> Note | None:
        from botocore.exceptions import ClientError

        try:
            key = self._given(_CUSTOMER_KEY)
            stored = self._hook.get_conn().get_object(Bucket=self.bucket, Key=f"{self.key}.json", **key)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                return None
            raise
        with stored["Body"] as body:
            return Note(body.read(max_bytes), stored["ETag"])

    def write_note(self, data: bytes, replaces: Note | None) -> Note:
        from botocore.exceptions import ClientError

        if (self.bucket, self._aws_conn_id) in _unconditional:
            return self._put_note(data, {})
        try:
            return self._put_note(data, {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces.version})
        except ClientError as error:
            code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code in (400, 501):
                return self._put_unconditionally(data, error)
            # 404: it was to be replaced, and has been deleted.
            if code not in (404, 409, 412) or (code == 404 and replaces is None):
                raise
            # The client sends a request again whose answer was lost: what is in the way may be this very note.
            there = self.read_note(len(data) + 1)
            if there is not None and there.data == data:
                return there
            raise NoteConflictError(f"{self.uri}.json was written by another process.") from error

    def _put_unconditionally(self, data: bytes, refusal: Exception) -> Note:
        """Write the note for a server that does not know conditional writes; raises if it is something else."""
        note = self._put_note(data, {})
        _unconditional.add((self.bucket, self._aws_conn_id))
        log.warning(
            "The S3 server of bucket %s does not support conditional writes (%s). Receipts are written without: two "
            "tasks that submit the same recipe for the same place at the same moment can both pay.",
            self.bucket,
            refusal,
        )
        return note

    def _put_note(self, data: bytes, condition: dict[str, str]) -> Note:
        arguments = {**self._given(_SHARED + _CUSTOMER_KEY), **condition}
        if self._encrypt:
            arguments["ServerSideEncryption"] = "AES256"
        if self._acl_policy and self._acl_policy not in _PUBLIC_ACLS:
            arguments["ACL"] = self._acl_policy
        put = self._hook.get_conn().put_object(
            Bucket=self.bucket, Key=f"{self.key}.json", Body=data, ContentType="application/json", **arguments
        )
        return Note(data, put["ETag"])
