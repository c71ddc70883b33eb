"""FluxToS3Operator: the image of a FLUX job becomes an object in S3."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk import BaseOperator

from airflow_provider_flux import metrics
from airflow_provider_flux.arguments import bytes_or_default, is_unset, parse_bytes, parse_mapping, parse_seconds
from airflow_provider_flux.client.jobs import Job, job_from
from airflow_provider_flux.exceptions import FluxBadImageError, FluxBadRequestError, FluxError, job_context
from airflow_provider_flux.execution.deferral import deadline_for, log_stored, read_event, wait_or_defer
from airflow_provider_flux.execution.outlets import openlineage_outputs, record_asset_events
from airflow_provider_flux.failures import abandoned_job_message, airflow_errors
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.links.flux import FluxImageLink
from airflow_provider_flux.receipts.lifecycle import failure_recorded
from airflow_provider_flux.receipts.submission import task_identity

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_flux.client.responses import Result
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.storage.s3 import S3Store


_URL = re.compile(r"(?i)(?:s3[an]?|(?P<http>https?))://")
"""What the amazon provider takes for a full URL; any other text with a colon in it is a key."""


class FluxToS3Operator(BaseOperator):
    """Upload the image of a FLUX job to S3, waiting for the job if it is not ready.

    The object gets the image's content type, and the metadata ``job-id``, ``model``, ``seed``, ``sha256``,
    ``width``, ``height``, ``format``. Returns what FluxGenerateOperator returns, with the object's ``uri``.
    A retry that finds its own image already there succeeds.

    :param generation: What FluxGenerateOperator returned (waited for or not, stored or not), or a job id. If it is
        empty, as after a skipped task (``on_moderated="skip"``), this task is skipped too; give it
        ``trigger_rule="none_failed"``, so that one skipped task does not keep other images from being stored.
    :param s3_bucket: Bucket; if None, ``s3_key`` is a full ``s3://bucket/key``, which may name the connection
        (``s3://conn_id@bucket/key``).
    :param s3_key: Key, relative to the bucket's root if ``s3_bucket`` is given.
    :param replace: Whether to overwrite another object at the key; if not, finding one fails the task.
    :param encrypt: Encrypt the object on the server (AES256).
    :param acl_policy: Canned ACL of the object.
    :param extra_args: Further arguments of the upload, as ``S3Hook(extra_args=...)`` takes them.
    :param verify: TLS verification, as ``S3Hook(verify=...)`` takes it.
    :param aws_conn_id: Connection of the amazon provider.
    :param flux_conn_id: Connection of the FLUX API.
    :param deferrable: Wait in the triggerer, so that no worker is held.
    :param timeout: Seconds to wait for the job.
    :param max_bytes: Largest image that is taken, in bytes.
    :raises FluxError: the class tells the outcome (``airflow_provider_flux.exceptions``). One that a retry
        cannot mend is an ``AirflowFailException`` too.
    """

    template_fields: Sequence[str] = (
        "generation",
        "s3_bucket",
        "s3_key",
        "acl_policy",
        "extra_args",
        "aws_conn_id",
        "flux_conn_id",
        "timeout",
        "max_bytes",
    )
    operator_extra_links = (FluxImageLink(),)
    ui_color = "#e8e4f3"

    def __init__(
        self,
        *,
        generation: dict[str, Any] | str | XComArg,
        s3_key: str,
        s3_bucket: str | None = None,
        replace: bool = False,
        encrypt: bool = False,
        acl_policy: str | None = None,
        extra_args: dict[str, Any] | None = None,
        verify: bool | str | None = None,
        aws_conn_id: str | None = "aws_default",
        flux_conn_id: str = "flux_default",
        deferrable: bool = True,
        timeout: float = 600,
        max_bytes: int = MAX_BYTES,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.generation = generation
        self.s3_key = s3_key
        self.s3_bucket = s3_bucket
        self.replace = replace
        self.encrypt = encrypt
        self.acl_policy = acl_policy
        self.extra_args = extra_args
        self.verify = verify
        self.aws_conn_id = aws_conn_id
        self.flux_conn_id = flux_conn_id
        self.deferrable = deferrable
        self.timeout: Any = timeout
        self.max_bytes: Any = max_bytes
        self._left: Job | None = None
        self._is_running = False
        self._image_uri: str | None = None

    @cached_property
    def _hook(self) -> FluxHook:
        from airflow_provider_flux.hooks.flux import FluxHook

        return FluxHook(self.flux_conn_id, log_errors=False)

    def execute(self, context: Context) -> dict[str, Any]:
        """Wait for the job, upload its image."""
        from airflow_provider_flux.exceptions import FluxStoreConfigurationError, FluxStoreError
        from airflow_provider_flux.images.transfer import copy, find, record_expected_image
        from airflow_provider_flux.receipts.stores import SidecarReceiptStore
        from airflow_provider_flux.storage import open_store

        if is_unset(self.generation):
            raise AirflowSkipException(
                "There is no image to store: generation is empty, as it is when the task before was skipped. "
                "Nothing was billed."
            )
        with self._errors():
            self.timeout = parse_seconds("timeout", self.timeout)
            self.max_bytes = parse_bytes("max_bytes", self.max_bytes)
            self._left = job = self._job()
            with job_context(job.id):
                store = self._store()
                store.check()
                if (there := find(store, job)) is not None:
                    self.log.info("The image of job %s is at %s already.", job.id, store.uri)
                    return self._tell(there, context)
                if (told := self._stored_already()) is not None:
                    try:
                        image = copy(told, open_store(told["uri"], self.aws_conn_id), store, self.max_bytes)
                        return self._stored(image, context)
                    except (FluxStoreError, FluxStoreConfigurationError, FluxBadImageError) as error:
                        self.log.warning("Asking the API for the image instead: %s", error.message)
                record_expected_image(store, job, task_identity(context))
            with failure_recorded(SidecarReceiptStore(store), "fail"):
                result = wait_or_defer(
                    self,
                    self._hook,
                    job,
                    deadline=deadline_for(self, None, self.timeout),
                    deferrable=self.deferrable,
                    store=self._store_for_triggerer(store),
                    max_bytes=self.max_bytes,
                )
                return self._upload(result, store, context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Go on after the triggerer has waited."""
        from airflow_provider_flux.receipts.stores import SidecarReceiptStore

        with self._errors():
            store = self._store()
            with failure_recorded(SidecarReceiptStore(store), "fail"):
                self._left, image, timeout, *_ = read_event(event, self.log)
                if image is not None:
                    return self._paid(self._stored(image, context))
                return self._upload(self._hook.wait(self._left, timeout), store, context)

    def on_kill(self) -> None:
        """Log what becomes of the job, which the API cannot cancel."""
        if self._left is not None:
            message = abandoned_job_message(self._left.id, is_running=self._is_running)
            self.log.log(logging.INFO if self._is_running else logging.WARNING, message)

    def _job(self) -> Job:
        try:
            return job_from(self.generation)
        except ValueError as error:
            raise FluxBadRequestError(f"generation cannot be used: {error}.") from None

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return what OpenLineage is told: the stored image."""
        return openlineage_outputs([self._image_uri] if self._image_uri else [])

    def _upload(self, result: Result, store: S3Store, context: Context) -> dict[str, Any]:
        from airflow_provider_flux.images.transfer import download_and_store

        image = download_and_store(self._hook.get_conn(), result, store, bytes_or_default(self.max_bytes, MAX_BYTES))
        return self._paid(self._stored(image, context))

    def _paid(self, image: dict[str, Any]) -> dict[str, Any]:
        """Count what was paid, unless the task that waited for the job has."""
        generation = parse_mapping(self.generation) or {}
        if generation.get("reused"):
            shared = {name: generation[name] for name in ("cost", "reused", "paid_by") if name in generation}
            return {**image, **shared}
        if generation.get("status") != "Ready":
            if image.get("cost") is not None:
                self.log.info("Paid %s credits for job %s.", image["cost"], image["id"])
            metrics.ready(image, self._tags)
        return image

    @contextmanager
    def _errors(self) -> Iterator[None]:
        self._is_running = True
        try:
            with airflow_errors(_retry):
                yield
        except FluxError as error:
            metrics.failed(type(error).__name__, self._tags)
            raise
        finally:
            self._is_running = False

    @property
    def _tags(self) -> dict[str, str]:
        return metrics.tags_of(self._left and self._left.model, self._hook)

    def _stored(self, image: dict[str, Any], context: Context) -> dict[str, Any]:
        log_stored(self.log, image)
        return self._tell(image, context)

    def _tell(self, image: dict[str, Any], context: Context) -> dict[str, Any]:
        self._image_uri = image["uri"]
        record_asset_events(self, context, image["uri"], image)
        return image

    def _stored_already(self) -> Mapping[str, Any] | None:
        """Return the description of an image that FluxGenerateOperator has stored; None if it has not."""
        told = parse_mapping(self.generation)
        return told if told is not None and isinstance(told.get("uri"), str) and told["uri"] else None

    def _store(self) -> S3Store:
        from airflow_provider_flux.storage import open_store
        from airflow_provider_flux.storage.s3 import S3Store

        bucket, key = self.s3_bucket or None, "" if self.s3_key is None else str(self.s3_key)
        url = _URL.match(key)
        if bucket and url:
            raise FluxBadRequestError(
                f"s3_bucket is {bucket!r}, and s3_key {key!r} is a full URL, which names a bucket too; give s3_key "
                f"relative to the bucket's root, or leave out s3_bucket."
            )
        if not key or key.endswith("/") or not (bucket or url):
            raise FluxBadRequestError(f"s3_bucket {bucket!r} and s3_key {key!r} name no object.")
        if url and url["http"]:
            bucket, key = self._read_http_url(key)
        if bucket:
            return S3Store(bucket, key, self.aws_conn_id, **self._s3_arguments())
        store = open_store(f"s3://{key[len(url[0]) :]}" if url else key, self.aws_conn_id, **self._s3_arguments())
        assert isinstance(store, S3Store), "its scheme is s3"
        return store

    def _read_http_url(self, url: str) -> tuple[str, str]:
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        try:
            bucket, key = S3Hook.parse_s3_url(url)
        except Exception as error:
            # Of several classes, depending on the amazon provider's version.
            raise FluxBadRequestError(f"s3_key {url!r} names no object ({error}).") from error
        return bucket, key

    def _s3_arguments(self) -> dict[str, Any]:
        return {
            "replace": self.replace,
            "encrypt": self.encrypt,
            "acl_policy": self.acl_policy,
            "extra_args": self._read_extra_args(),
            "verify": self.verify,
        }

    def _read_extra_args(self) -> dict[str, Any] | None:
        if is_unset(self.extra_args):
            return None
        extra_args = parse_mapping(self.extra_args)
        if extra_args is None:
            raise FluxBadRequestError("extra_args must be a dict of S3 upload arguments.")
        return dict(extra_args)

    def _store_for_triggerer(self, store: S3Store) -> dict[str, Any] | None:
        """Return what the triggerer needs to store the image; None if that must not be written down."""
        if any("SSECustomer" in name for name in self._read_extra_args() or {}):
            return None
        told = {"uri": store.uri, "aws_conn_id": self.aws_conn_id, **self._s3_arguments()}
        try:
            json.dumps(told)
        except (TypeError, ValueError):
            return None
        return told


def _retry(error: FluxError) -> str:
    return "A retry of this task resumes the same job and is not billed again." if error.retryable else ""
