"""The asset example on a running Airflow: an image's event starts the DAG that is scheduled on it."""

from __future__ import annotations

import pytest

from tests.e2e.conftest import Stack
from tests.e2e.running import Run
from tests.servers.process import wait_for

pytestmark = pytest.mark.e2e


def test_an_image_starts_the_dag_that_publishes_it(stack: Stack) -> None:
    api, publishing = stack.airflow.api, "flux_publish_image_of_the_day"
    api.wait_for_dag(publishing)
    api.pause(publishing, False)
    run = Run(stack, "flux_image_of_the_day")
    assert run.wait() == "success"
    told = run.told("generate")

    def started() -> str | None:
        runs = api.request("GET", f"/dags/{publishing}/dagRuns")["dag_runs"]
        return runs[0]["dag_run_id"] if runs else None

    publish = Run(stack, publishing, wait_for(started, timeout=120, what="the DAG that publishes"))
    assert publish.wait() == "success"
    assert publish.api.xcom(publishing, publish.id, "publish") == f"{told['uri']} ({told['width']}x{told['height']})"
