"""FluxImageLink: from a task in the Airflow UI to its picture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk import BaseOperatorLink

from airflow_provider_flux.best_effort import best_effort

if TYPE_CHECKING:
    from airflow.sdk import BaseOperator


class FluxImageLink(BaseOperatorLink):
    """Open what a task made: its image when it is there; until then, and for many, the gallery's page of it.

    Made of the task instance's identity alone, so retries, deferrals and timeouts do not change it: the gallery
    decides when it is opened.
    """

    name = "Picture"

    def get_link(self, operator: BaseOperator, *, ti_key: Any) -> str:
        """Return the link."""
        with best_effort("make the link to the picture"):
            from airflow.configuration import conf

            base_url = conf.get("api", "base_url", fallback="/").rstrip("/")
            where = ("dags", ti_key.dag_id, "runs", ti_key.run_id, "tasks", ti_key.task_id, str(ti_key.map_index))
            return f"{base_url}/flux/{'/'.join(quote(part, safe='') for part in where)}/picture"
        return ""
