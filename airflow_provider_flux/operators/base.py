"""FluxBaseOperator: what every FLUX operator shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_flux import metrics
from airflow_provider_flux.best_effort import best_effort
from airflow_provider_flux.client.jobs import job_from
from airflow_provider_flux.exceptions import FluxError, FluxTimeoutError
from airflow_provider_flux.execution.deferral import read_event
from airflow_provider_flux.execution.outlets import openlineage_outputs, record_asset_events
from airflow_provider_flux.execution.templates import TemplatedOperator
from airflow_provider_flux.failures import FAILURE_KEY, airflow_errors, failure_record
from airflow_provider_flux.identity import task_identity
from airflow_provider_flux.links.flux import FluxImageLink

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_flux.client.jobs import Job
    from airflow_provider_flux.hooks.flux import FluxHook
    from airflow_provider_flux.results import WaitEvent


class FluxBaseOperator(TemplatedOperator):
    """The hook, errors and their metric, asset events, lineage, and the link to the gallery.

    A subclass sets ``flux_conn_id`` and ``aws_conn_id``, and does its work within :meth:`_errors`.
    """

    operator_extra_links = (FluxImageLink(),)
    ui_color = "#e8e4f3"

    flux_conn_id: str
    aws_conn_id: str | None
    budget: str | dict[str, Any] | None = None
    _is_running = False
    """Whether the task is working, so that a signal does not necessarily end it."""
    _job: Job | None = None
    """The job that the task waits for."""
    _unused_cost = 0.0
    """Credits of further jobs that are billed to the task and not used."""
    _destination: str | None = None
    """Where the image is to be stored."""
    _run_dag_id: str | None = None
    """The DAG of the running task, for metrics."""
    _image_uris: Sequence[str] = ()
    """The images that the task stored, for lineage."""

    @cached_property
    def _hook(self) -> FluxHook:
        from airflow_provider_flux.hooks.flux import FluxHook

        return FluxHook(self.flux_conn_id, log_errors=False, budget=self.budget, aws_conn_id=self.aws_conn_id)

    @abstractmethod
    def _retry_sentence(self, error: FluxError) -> str:
        """Return the sentence that says what a retry does after ``error``; empty if it says nothing new."""

    @property
    @abstractmethod
    def _requested_model(self) -> str | None:
        """The model, for metrics; None if it is not known."""

    @property
    def _metric_tags(self) -> dict[str, str]:
        return metrics.tags_of(self._requested_model, self._hook, self._run_dag_id)

    @contextmanager
    def _errors(self, context: Context) -> Iterator[None]:
        """Count, record and log a FLUX error of the block, and raise it as Airflow should handle it."""
        self._is_running = True
        self._run_dag_id = context["ti"].dag_id
        try:
            with airflow_errors(self._retry_sentence):
                try:
                    yield
                except FluxError as error:
                    self._record_failure(context, error)
                    self._handle_error(error)
                    raise
                except AirflowTaskTimeout:
                    self._record_failure(context, self._timeout_error())
                    raise
        finally:
            self._is_running = False

    def _record_failure(self, context: Context, error: FluxError) -> None:
        """Push why the task fails, for the gallery."""
        with best_effort("record the failure"):
            job = self._job if self._job is not None and self._job.id == error.job_id else None
            cost = None if job is None or job.cost is None else job.cost + self._unused_cost
            record = failure_record(
                error,
                retry=self._retry_sentence(error),
                model=self._requested_model,
                uri=self._destination,
                cost=cost,
            )
            context["ti"].xcom_push(key=FAILURE_KEY, value=record)

    def _timeout_error(self) -> FluxError:
        job_id = None if self._job is None else self._job.id
        billing = "" if job_id else "The receipt shows what was billed, if a job was submitted."
        return FluxTimeoutError("The task reached its execution_timeout.", job_id=job_id, billing=billing)

    def _handle_error(self, error: FluxError) -> None:
        """Count the error; a subclass may raise another one in its place."""
        metrics.failed(type(error).__name__, self._metric_tags)

    def _read_event(self, event: Any) -> WaitEvent:
        """Return the event of the trigger that waited for the job; raises its error, as :func:`read_event` does."""
        try:
            return read_event(event, self.log)
        except FluxError as error:
            with suppress(ValueError):
                self._hook.settle(job_from(event), error=error)
            raise

    def _announce(self, context: Context, image_uris: Sequence[str], uri: str | None, extra: dict[str, Any]) -> None:
        """Report what the task stored to its asset outlets, and remember it for lineage.

        :param uri: Where it is stored, for asset aliases; None: nowhere.
        :param extra: JSON that the asset events contain.
        """
        self._image_uris = image_uris
        record_asset_events(self, context, uri, extra)

    def _result(self, context: Context, data: dict[str, Any]) -> dict[str, Any]:
        """Return the task's result: ``data``, and which task instance returns it, so that the gallery is found."""
        return {**data, "task_instance": task_identity(context).to_dict()}

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the stored images as OpenLineage outputs."""
        return openlineage_outputs(list(self._image_uris))
