"""FluxToS3Operator: the image of a FLUX job becomes an object in S3."""

from __future__ import annotations

import contextlib
import json
import logging
import re
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_flux import metrics
from airflow_provider_flux.arguments import bytes_or_default, is_unset, parse_bytes, parse_mapping, parse_seconds
from airflow_provider_flux.client.catalogue.prices import format_cost
from airflow_provider_flux.client.jobs import Job, job_from
from airflow_provider_flux.exceptions import (
    FluxBadImageError,
    FluxBadRequestError,
    FluxError,
    FluxStoreConfigurationError,
    FluxStoreError,
    job_context,
)
from airflow_provider_flux.execution.deferral import (
    WaitOptions,
    log_stored,
    resumed_timeout,
    wait_or_defer,
)
from airflow_provider_flux.failures import SAME_JOB_AGAIN, abandoned_job_message
from airflow_provider_flux.identity import task_identity
from airflow_provider_flux.images.verification import MAX_BYTES
from airflow_provider_flux.operators.base import FluxBaseOperator
from airflow_provider_flux.receipts.lifecycle import failure_recorded
from airflow_provider_flux.results import ImageResult

if TYPE_CHECKING:
    from airflow.sdk import Context, XComArg

    from airflow_provider_flux.client.responses import Result
    from airflow_provider_flux.storage.s3 import S3Store


_URL = re.compile(r"(?i)(?:s3[an]?|(?P<http>https?))://")
"""What the amazon provider takes for a full URL; any other text with a colon in it is a key."""


class FluxToS3Operator(FluxBaseOperator):
    """Upload the image of a FLUX job to S3, waiting for the job if it is not ready.

    The object gets the image's content type, and the metadata ``job-id``, ``model``, ``seed``, ``sha256``,
    ``width``, ``height``, ``format``, ``content-credentials`` (whether C2PA metadata is in the file, which is stored
    unchanged) and ``digital-source-type`` (IPTC's ``trainedAlgorithmicMedia``). Returns what
    FluxGenerateOperator returns, with the object's ``uri``. A retry that finds its own image already there succeeds.

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
    :param max_bytes: Largest accepted image, in bytes.
    :raises FluxError: the class says what happened (``airflow_provider_flux.exceptions``). One that a retry
        cannot fix is an ``AirflowFailException`` too.
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

    def execute(self, context: Context) -> dict[str, Any]:
        """Find the image where it is stored already, or wait for its job; store it in S3."""
        if is_unset(self.generation):
            raise AirflowSkipException(
                "There is no image to store: generation is empty, as it is after a skipped task. Nothing was billed."
            )
        with self._errors(context):
            options = self._options()
            self._job = job = self._read_job()
            with job_context(job.id):
                store = self._store()
                self._destination = store.uri
                store.check()
                if (image := self._find_stored_image(job, store, options)) is not None:
                    return self._finish(image, context)
            result = self._wait(job, store, options, context)
            return self._download_and_store(result, store, context)

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> dict[str, Any]:
        """Resume after the triggerer has waited for the job."""
        with self._errors(context):
            store = self._store()
            self._destination = store.uri
            with self._failure_recorded(store):
                waited = self._read_event(event)
                self._job = waited.job
                if waited.image is not None:
                    self._hook.settle(waited.job, waited.image.cost)
                    log_stored(self.log, waited.image)
                    return self._finish(self._counted(waited.image), context)
                result = self._hook.wait(waited.job, resumed_timeout(waited), settle=False)
            return self._download_and_store(result, store, context)

    def on_kill(self) -> None:
        """Log what happens to the job, which the API cannot cancel."""
        if self._job is not None:
            message = abandoned_job_message(self._job.id, is_running=self._is_running)
            self.log.log(logging.INFO if self._is_running else logging.WARNING, message)

    def _options(self) -> WaitOptions:
        """Return how to wait; raises before anything is done."""
        return WaitOptions(
            timeout=parse_seconds("timeout", self.timeout),
            deferrable=self.deferrable,
            max_bytes=parse_bytes("max_bytes", self.max_bytes),
        )

    def _read_job(self) -> Job:
        try:
            return job_from(self.generation)
        except ValueError as error:
            raise FluxBadRequestError(f"generation is invalid: {error}.") from None

    def _find_stored_image(self, job: Job, store: S3Store, options: WaitOptions) -> ImageResult | None:
        """Return the image if an earlier attempt, or the task that generated it, has stored it already."""
        from airflow_provider_flux.images.object_metadata import find_uploaded_image
        from airflow_provider_flux.images.transfer import copy_stored_image
        from airflow_provider_flux.storage import open_store

        if (image := find_uploaded_image(store, job)) is not None:
            self.log.info("The image of job %s is already stored at %s.", job.id, store.uri)
            return image
        image = self._generated
        if image is None or not image.uri:
            return None
        try:
            source = open_store(image.uri, self.aws_conn_id)
            image = copy_stored_image(image, source, store, options.max_bytes)
        except (FluxStoreError, FluxStoreConfigurationError, FluxBadImageError) as error:
            self.log.warning("The stored image cannot be copied, so the API is asked for it: %s", error.message)
            return None
        log_stored(self.log, image)
        return image

    def _wait(self, job: Job, store: S3Store, options: WaitOptions, context: Context) -> Result:
        """Return the finished job's result; defers if it takes longer than a few seconds."""
        from airflow_provider_flux.receipts.lifecycle import record_expected
        from airflow_provider_flux.receipts.stores import SidecarReceiptStore

        with job_context(job.id):
            record_expected(SidecarReceiptStore(store), job, task_identity(context), store.uri)
        with self._failure_recorded(store):
            deadline = options.deadline(self, None)
            arguments = self._store_arguments_for_triggerer(store)
            return wait_or_defer(self, self._hook, job, options, deadline, store=arguments)

    def _download_and_store(self, result: Result, store: S3Store, context: Context) -> dict[str, Any]:
        from airflow_provider_flux.images.transfer import download_and_store

        with self._failure_recorded(store):
            max_bytes = bytes_or_default(self.max_bytes, MAX_BYTES)
            try:
                image = download_and_store(self._hook.get_conn(), result, store, max_bytes)
            finally:
                # After the image, whose URL expires.
                self._hook.settle(result.job, result.cost)
            log_stored(self.log, image)
            return self._finish(self._counted(image), context)

    def _failure_recorded(self, store: S3Store) -> AbstractContextManager[None]:
        from airflow_provider_flux.receipts.stores import SidecarReceiptStore

        return failure_recorded(SidecarReceiptStore(store), "fail")

    def _counted(self, image: ImageResult) -> ImageResult:
        """Log and count what was paid, unless the task that waited for the job has."""
        generated = self._generated
        if generated is not None and generated.reused:
            return replace(image, cost=generated.cost, reused=True, paid_by=generated.paid_by)
        if generated is None or generated.status != "Ready":
            if image.cost is not None:
                self.log.info("Paid %s for job %s.", format_cost(image.cost), image.id)
            metrics.ready(image, self._metric_tags)
        return image

    def _finish(self, image: ImageResult, context: Context) -> dict[str, Any]:
        result = self._result(context, image.to_dict())
        self._announce(context, [image.uri] if image.uri else [], image.uri, result)
        return result

    @property
    def _generated(self) -> ImageResult | None:
        """The result of the task that generated the image; None if only the job's id is known."""
        with contextlib.suppress(ValueError):
            if (generation := parse_mapping(self.generation)) is not None:
                return ImageResult.from_dict(generation)
        return None

    @property
    def _requested_model(self) -> str | None:
        return None if self._job is None else self._job.model

    def _handle_error(self, error: FluxError) -> None:
        super()._handle_error(error)
        if self._job is not None and self._job.id == error.job_id:
            self._hook.settle(self._job, error=error)

    def _retry_sentence(self, error: FluxError) -> str:
        return SAME_JOB_AGAIN if error.retryable else ""

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

    def _store_arguments_for_triggerer(self, store: S3Store) -> dict[str, Any] | None:
        """Return the store's arguments for the triggerer; None if they must not be stored in Airflow's database."""
        if any("SSECustomer" in name for name in self._read_extra_args() or {}):
            return None
        arguments = {"uri": store.uri, "aws_conn_id": self.aws_conn_id, **self._s3_arguments()}
        try:
            json.dumps(arguments)
        except (TypeError, ValueError):
            return None
        return arguments
