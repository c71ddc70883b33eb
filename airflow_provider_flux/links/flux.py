"""FluxImageLink: from a task in the Airflow UI to its image."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperatorLink

from airflow_provider_flux.best_effort import best_effort
from airflow_provider_flux.gallery_urls import base_url, task_path
from airflow_provider_flux.identity import TaskIdentity

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


class FluxImageLink(BaseOperatorLink):
    """Opens the image of a task; while the task waits, or if it has several images, the task's gallery page.

    The link contains the task instance's identity only, so retries, deferrals and timeouts do not change it: the
    gallery decides where it leads when it is opened.
    """

    name = "Image"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the link."""
        with best_effort("make the link to the image"):
            task = TaskIdentity(ti_key.dag_id, ti_key.task_id, ti_key.run_id, ti_key.map_index)
            return f"{base_url()}{task_path(task)}/image"
        return ""
