"""S3Store: an image in S3, through the amazon provider's S3Hook."""

from __future__ import annotations

import contextlib
import copy
import logging
import time
from functools import cached_property, lru_cache
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote

from airflow_provider_flux import __version__
from airflow_provider_flux.exceptions import FluxImageExistsError, FluxStoreConfigurationError, FluxStoreError
from airflow_provider_flux.storage.base import ImageStore, Sidecar, SidecarConflictError

if TYPE_CHECKING:
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from botocore.exceptions import ClientError

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
CONNECTIONS = 32
"""Connections that a client keeps: more than the threads of any pool here; botocore keeps ten and warns above that."""
_PAGE = 1000
"""Names that S3 lists in one request."""
# One request that writes the file as it comes.
_WHOLE = {"use_threads": False, "multipart_threshold": 1024**3}
# Arguments of an upload in parts, which a single request does not take.
_OF_PARTS = frozenset(("ChecksumType", "MpuObjectSize"))
_LONGEST_KEY = 1024
_USER_AGENT = f"airflow-provider-flux/{__version__}"
_LIFE = 300
"""Seconds for which a client is kept: the permissions of its credentials can change."""

# A key that the customer keeps is needed to read, too.
_CUSTOMER_KEY = ("SSECustomerAlgorithm", "SSECustomerKey", "SSECustomerKeyMD5")
# A note holds the prompt: the world may see the image, not what it was made of.
_PUBLIC_ACLS = ("public-read", "public-read-write", "authenticated-read")
_PASSING = frozenset(
    (
        "RequestTimeout",
        "RequestTimeoutException",
        "PriorRequestNotComplete",
        "IncompleteBody",
        "BadDigest",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "RequestLimitExceeded",
        "SlowDown",
    )
)
"""S3's codes of temporary errors whose HTTP status is that of a bad request."""


def _status(error: ClientError) -> int:
    return int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 500)


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code"))


_UNSUPPORTED = ("NotImplemented", "InvalidArgument", "InvalidRequest", "UnsupportedArgument", "MethodNotAllowed")
"""Codes of HTTP 400 with which a server may refuse conditional writes that it does not support."""


class _UnconditionalError(Exception):
    """The server refuses conditional writes; the message is its error."""


_unconditional: set[tuple[str, str | None]] = set()
"""Buckets, each with its connection, whose server is known to refuse conditional writes."""


def metadata_text(value: Any) -> str:
    """Return ``value`` as S3 metadata, which is sent as HTTP headers: quoted unless it is plain ASCII."""
    text = str(value)
    return text if text.isascii() and text.isprintable() else quote(text)


def job_in(head: dict[str, Any]) -> str | None:
    """Return the job whose image S3 describes, from its metadata; None if it names none."""
    metadata = {name.lower(): value for name, value in head.get("Metadata", {}).items()}
    return metadata.get("job-id") if "sha256" in metadata else None


def connected_hook(aws_conn_id: str | None, verify: bool | str | None = None) -> S3Hook:
    """Return a hook with its own client, for many threads; the connection's configuration takes precedence."""
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook

    hook = S3Hook(aws_conn_id=aws_conn_id, verify=verify)
    hook.conn = _new_client(hook, {"max_pool_connections": CONNECTIONS})
    return hook


def _new_client(hook: S3Hook, defaults: dict[str, Any]) -> Any:
    """Return a client of the hook's connection, whose configuration takes precedence over ``defaults``."""
    from botocore.config import Config

    # Not hook.get_client_type(): for the user agent, it searches the call stack for an operator, which reads the
    # source of every function on it and takes longer than all else about the client. Without a user agent of ours,
    # botocore composes one for each request, which takes a tenth of the request's time.
    return hook.get_session(region_name=hook.region_name).client(
        "s3",
        endpoint_url=hook.conn_config.get_service_endpoint_url("s3"),
        config=Config(user_agent=_USER_AGENT, **defaults).merge(hook.config),
        verify=hook.verify,
    )


def _kept_hook(aws_conn_id: str | None, verify: bool | str | None) -> S3Hook:
    """Return a hook whose client this process keeps for some minutes, until the connection changes."""
    from airflow.sdk import BaseHook

    connection: Any = None
    if aws_conn_id is not None:
        with contextlib.suppress(Exception):  # the hook has words of its own for it
            connection = BaseHook.get_connection(aws_conn_id)
    identity = connection and (connection.login, connection.password, connection.host, connection.extra)
    return _hook_of(aws_conn_id, verify, identity, int(time.monotonic() / _LIFE))


@lru_cache(maxsize=16)
def _hook_of(aws_conn_id: str | None, verify: bool | str | None, _identity: Any, _age: int) -> S3Hook:
    return connected_hook(aws_conn_id, verify)


class S3Store(ImageStore):
    """An object in S3.

    :param bucket: Bucket.
    :param key: Key.
    :param aws_conn_id: Airflow connection of the amazon provider; None for boto3's own credentials.
    :param is_conn_in_uri: Whether the author's URI names the connection; :attr:`uri` then does, too.
    :param replace: Whether :meth:`put` may overwrite; else it raises FluxImageExistsError.
    :param encrypt: Server-side encryption (AES256).
    :param acl_policy: Canned ACL.
    :param extra_args: Further arguments of the upload (``S3Hook(extra_args=...)``).
    :param verify: TLS verification (``S3Hook(verify=...)``).
    :param hook: A hook whose client is used, since each makes one of its own.
    :param keep_client: Use a client that this process keeps for some minutes, for a process that stores many images.
    """

    max_presigned_seconds = 7 * 24 * 3600

    def __init__(
        self,
        bucket: str,
        key: str,
        aws_conn_id: str | None,
        *,
        is_conn_in_uri: bool = False,
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
        self._aws_conn_id = aws_conn_id
        self._is_conn_in_uri = is_conn_in_uri
        self.uri = self._uri_of(key)
        self.replace = replace
        self._encrypt = encrypt
        self._acl_policy = acl_policy
        self._extra_args = extra_args or {}
        self._verify = verify
        self._shared_hook = hook
        self._keep_client = keep_client

    def _uri_of(self, key: str) -> str:
        conn = f"{self._aws_conn_id}@" if self._is_conn_in_uri else ""
        return f"s3://{conn}{self.bucket}/{key}"

    @cached_property
    def _hook(self) -> S3Hook:
        if self._keep_client:
            return _kept_hook(self._aws_conn_id, self._verify)
        return self._shared_hook or connected_hook(self._aws_conn_id, self._verify)

    def check(self) -> None:
        from boto3.s3.transfer import S3Transfer

        if (said := self.name_problem()) is not None:
            raise FluxStoreConfigurationError(said)
        if unknown := sorted(self._extra_args.keys() - set(S3Transfer.ALLOWED_UPLOAD_ARGS)):
            raise FluxStoreConfigurationError(
                f"extra_args contains unsupported S3 upload arguments: {', '.join(unknown)}."
            )
        if not isinstance(self._extra_args.get("Metadata") or {}, dict):
            raise FluxStoreConfigurationError("extra_args is wrong: its Metadata must be a dict.")
        try:
            if self._is_conn_in_uri and self._is_conn_missing:
                # S3Hook would use boto3's own credentials, which are others than those that the author chose.
                raise FluxStoreConfigurationError(f"Airflow has no connection {self._aws_conn_id!r} (for {self.uri}).")
            self._look_at_bucket()
        except FluxStoreConfigurationError:
            raise
        except Exception as error:
            if problem := self.misconfiguration(error):
                raise FluxStoreConfigurationError(
                    f"{self.uri} cannot be written: {problem.strip().rstrip('.')}."
                ) from error
            raise FluxStoreError(f"S3 cannot be reached for {self.uri} ({error}).") from error

    def name_problem(self) -> str | None:
        if len(f"{self.key}.json".encode()) > _LONGEST_KEY:
            return f"The key of {self.uri}, with its receipt's suffix, is longer than the {_LONGEST_KEY} bytes of S3."
        if ".." in self.key.split("/"):
            return f"The key of {self.uri} contains the part '..', which S3 servers refuse."
        return None

    @property
    def _is_conn_missing(self) -> bool:
        """Whether Airflow does not know the connection; S3Hook then continues without it."""
        return self._aws_conn_id is not None and self._hook.conn_config.conn_type is None

    def _look_at_bucket(self) -> None:
        from botocore.exceptions import ClientError

        client = self._hook.get_conn()
        try:
            client.head_bucket(Bucket=self.bucket)
        except ClientError as error:
            status = _status(error)
            if status == 404:
                raise FluxStoreConfigurationError(f"There is no bucket {self.bucket!r} (for {self.uri}).") from error
            if error.operation_name != "HeadBucket" or status >= 500:
                raise
            try:
                # An answer to HEAD has no body, which alone says why.
                client.list_objects_v2(Bucket=self.bucket, MaxKeys=1)
            except ClientError as reason:
                # Who may only put objects is refused the look at the bucket; that says nothing about the put.
                if reason.operation_name != "ListObjectsV2" or _code(reason) != "AccessDenied":
                    raise

    def misconfiguration(self, error: Exception) -> str | None:
        """Return what is wrong with the configuration, for every error of boto3."""
        from botocore import exceptions as boto

        if isinstance(error, boto.ClientError):
            status, code = _status(error), _code(error)
            # An answer to HEAD has no body that says why.
            if status not in (301, 307, 400, 401, 403) or code in _PASSING or error.operation_name == "HeadObject":
                return None
            message = error.response.get("Error", {}).get("Message") or error
            what = "credentials" if status in (401, 403) or "Token" in code else "region or the endpoint"
            return f"S3 refuses the {what} ({code}: {str(message).rstrip('.')})"
        if isinstance(error, (boto.NoCredentialsError, boto.PartialCredentialsError)):
            return self._no_credentials(error)
        if isinstance(error, boto.SSLError):
            # What else goes wrong with TLS may be gone the next time.
            return str(error) if "CERTIFICATE_VERIFY_FAILED" in str(error) else None
        outages = (
            boto.HTTPClientError,
            boto.ConnectionError,
            boto.IncompleteReadError,
            boto.ChecksumError,
            boto.FlexibleChecksumError,
            boto.CredentialRetrievalError,
            boto.TokenRetrievalError,
            boto.MetadataRetrievalError,
        )
        if isinstance(error, outages):
            return None
        # All else of botocore's is how it was set up.
        return str(error) if isinstance(error, boto.BotoCoreError) else super().misconfiguration(error)

    def _no_credentials(self, error: Exception) -> str:
        conn = f"the connection {self._aws_conn_id!r} holds none"
        if self._aws_conn_id is None:
            conn = "aws_conn_id names no connection"
        elif self._is_conn_missing:
            conn = f"Airflow has no connection {self._aws_conn_id!r}"
        return (
            f"{error}; {conn}, and boto3 finds none on this machine. Put an access key into an Airflow connection of "
            f"type 'aws' (login and password), or give the worker a role"
        )

    def _given(self, names: tuple[str, ...]) -> dict[str, Any]:
        return {name: self._extra_args[name] for name in names if name in self._extra_args}

    def head(self) -> dict[str, Any] | None:
        """Return S3's description of the object; None if it does not exist."""
        from botocore.exceptions import ClientError

        try:
            return self._hook.get_conn().head_object(Bucket=self.bucket, Key=self.key, **self._given(_CUSTOMER_KEY))
        except ClientError as error:
            if error.response.get("ResponseMetadata", {}).get("HTTPStatusCode") == 404:
                return None
            raise

    def sibling(self, name: str) -> S3Store:
        other = copy.copy(self)
        folder, slash, _ = self.key.rpartition("/")
        other.key = f"{folder}{slash}{name}"
        other.uri = self._uri_of(other.key)
        return other

    def put(self, path: Path, content_type: str, metadata: dict[str, str]) -> None:
        # Ours take precedence: a retry recognises its own image by them.
        given = {**(self._extra_args.get("Metadata") or {}), **metadata}
        metadata = {name: metadata_text(value) for name, value in given.items()}
        if not self.replace and (head := self.head()) is not None:
            job_id = job_in(head)
            if job_id is None or job_id != metadata.get("job-id"):
                raise FluxImageExistsError(f"{self.uri} exists, and replace=False keeps it.")
        extra_args = {name: value for name, value in self._extra_args.items() if name not in _OF_PARTS}
        arguments = {"ContentType": content_type, **extra_args, "Metadata": metadata}
        if self._encrypt:
            arguments["ServerSideEncryption"] = "AES256"
        if self._acl_policy:
            arguments["ACL"] = self._acl_policy
        with path.open("rb") as file:
            # One request that reads the file as it goes; parts would be left behind by a crash.
            self._hook.get_conn().put_object(Bucket=self.bucket, Key=self.key, Body=file, **arguments)

    def get(self, file: BinaryIO) -> None:
        from boto3.s3.transfer import TransferConfig

        key = self._given(_CUSTOMER_KEY)
        self._hook.get_conn().download_fileobj(
            self.bucket, self.key, file, ExtraArgs=key or None, Config=TransferConfig(**_WHOLE)
        )

    def exists(self) -> bool:
        return self.head() is not None

    def matches(self, size: int, sha256: str) -> bool:
        head = self.head() or {}
        metadata = {name.lower(): value for name, value in head.get("Metadata", {}).items()}
        return head.get("ContentLength") == size and metadata.get("sha256") == sha256

    def names(self, limit: int) -> frozenset[str] | None:
        from botocore.exceptions import BotoCoreError, ClientError

        folder = self.key[: self.key.rfind("/") + 1]
        listing = self._hook.get_conn().get_paginator("list_objects_v2")
        pages = listing.paginate(Bucket=self.bucket, Prefix=folder, Delimiter="/", PaginationConfig={"PageSize": _PAGE})
        names: set[str] = set()
        try:
            for page in islice(pages, max(1, limit // _PAGE)):
                names.update(item["Key"].removeprefix(folder) for item in page.get("Contents", ()))
                if not page.get("IsTruncated"):
                    return frozenset(names)
        except (ClientError, BotoCoreError):
            # Who may not list may still read each object.
            log.debug("%s cannot be listed.", self._uri_of(folder), exc_info=True)
        return None

    def presigned_url(self, expires: int) -> str:
        # The signature of a client that does not name its version may be one that newer regions refuse.
        client = _new_client(self._hook, {"signature_version": "s3v4"})
        arguments = {"Bucket": self.bucket, "Key": self.key}
        url: str = client.generate_presigned_url("get_object", Params=arguments, ExpiresIn=expires)
        return url

    def read_sidecar(self, max_bytes: int) -> Sidecar | None:
        from botocore.exceptions import ClientError

        try:
            key = self._given(_CUSTOMER_KEY)
            stored = self._hook.get_conn().get_object(Bucket=self.bucket, Key=f"{self.key}.json", **key)
        except ClientError as error:
            if error.response.get("Error", {}).get("Code") in ("NoSuchKey", "404"):
                return None
            raise
        with stored["Body"] as body:
            return Sidecar(body.read(max_bytes), stored["ETag"])

    def write_sidecar(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        if (self.bucket, self._aws_conn_id) in _unconditional:
            return self._put_after_a_look(data, replaces)
        try:
            return self._put_if_unchanged(data, replaces)
        except _UnconditionalError as refusal:
            return self._put_unconditionally(data, replaces, refusal)

    def replace_sidecar(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        try:
            return self._put_if_unchanged(data, replaces)
        except _UnconditionalError as refusal:
            raise FluxStoreConfigurationError(
                f"{self.uri}.json cannot be written safely by several processes: the S3 server of bucket {self.bucket} "
                f"does not support conditional writes ({refusal})."
            ) from refusal

    def _put_if_unchanged(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        """Write the sidecar conditionally.

        :raises _UnconditionalError: if the server refuses conditional writes.
        """
        from botocore.exceptions import ClientError

        try:
            return self._put_note(data, {"IfNoneMatch": "*"} if replaces is None else {"IfMatch": replaces.version})
        except ClientError as error:
            code = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode")
            if code == 501 or (code == 400 and _code(error) in _UNSUPPORTED):
                raise _UnconditionalError(str(error)) from error
            # 404: it was to be replaced, and has been deleted.
            if code not in (404, 409, 412) or (code == 404 and replaces is None):
                raise
            # The client sends a request again whose answer was lost: what is in the way may be this very note.
            there = self.read_sidecar(len(data) + 1)
            if there is not None and there.data == data:
                return there
            raise SidecarConflictError(f"{self.uri}.json was written by another process.") from error

    def _put_after_a_look(self, data: bytes, replaces: Sidecar | None) -> Sidecar:
        there = self.read_sidecar(max(len(data), len(replaces.data) if replaces else 0) + 1)
        if (there and there.data) != (replaces and replaces.data):
            raise SidecarConflictError(f"{self.uri}.json was written by another process.")
        return self._put_note(data, {})

    def _put_unconditionally(self, data: bytes, replaces: Sidecar | None, refusal: Exception) -> Sidecar:
        """Write the sidecar on a server without conditional writes; raises if the refusal has another cause."""
        note = self._put_after_a_look(data, replaces)
        _unconditional.add((self.bucket, self._aws_conn_id))
        log.warning(
            "The S3 server of bucket %s does not support conditional writes (%s). Receipts are written after a look: "
            "two tasks that submit the same recipe for the same place at the same moment can both pay.",
            self.bucket,
            refusal,
        )
        return note

    def _put_note(self, data: bytes, condition: dict[str, str]) -> Sidecar:
        arguments = {**self._given(_SHARED + _CUSTOMER_KEY), **condition}
        if self._encrypt:
            arguments["ServerSideEncryption"] = "AES256"
        if self._acl_policy and self._acl_policy not in _PUBLIC_ACLS:
            arguments["ACL"] = self._acl_policy
        put = self._hook.get_conn().put_object(
            Bucket=self.bucket, Key=f"{self.key}.json", Body=data, ContentType="application/json", **arguments
        )
        return Sidecar(data, put["ETag"])
