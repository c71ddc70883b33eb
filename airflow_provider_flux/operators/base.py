"""FluxBaseOperator: what every FLUX operator shares."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow_provider_flux import metrics
from airflow_provider_flux.client.jobs import job_from
from airflow_provider_flux.exceptions import FluxError
from airflow_provider_flux.execution.deferral import read_event
from airflow_provider_flux.execution.outlets import openlineage_outputs, record_asset_events
from airflow_provider_flux.execution.templates import TemplatedOperator
from airflow_provider_flux.failures import airflow_errors
from airflow_provider_flux.links.flux import FluxImageLink

if TYPE_CHECKING:
    from airflow.sdk import Context

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
        return metrics.tags_of(self._requested_model, self._hook)

    @contextmanager
    def _errors(self) -> Iterator[None]:
        """Count and log a FLUX error of the block, and raise it as Airflow should handle it."""
        self._is_running = True
        try:
            with airflow_errors(self._retry_sentence):
                try:
                    yield
                except FluxError as error:
                    self._handle_error(error)
                    raise
        finally:
            self._is_running = False

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

    def get_openlineage_facets_on_complete(self, task_instance: Any) -> Any:
        """Return the stored images as OpenLineage outputs."""
        return openlineage_outputs(list(self._image_uris))
