"""The asset example on a running Airflow: an image's event starts the DAG that is scheduled on it."""

from __future__ import annotations

from urllib.parse import quote

import pytest

from tests.e2e.conftest import Stack
from tests.e2e.running import Run
from tests.servers.process import wait_for

pytestmark = pytest.mark.e2e


def test_asset_event_of_an_image_starts_the_dag_scheduled_on_it(stack: Stack) -> None:
    api, publishing = stack.airflow.api, "flux_publish_image_of_the_day"
    api.wait_for_dag(publishing)
    api.pause(publishing, False)
    stack.flux.settings(duration=6)  # longer than defer_after, so that the task is deferred
    run = Run(stack, "flux_image_of_the_day")
    assert run.wait() == "success"
    image = run.result("generate")

    def started() -> str | None:
        runs = api.request("GET", f"/dags/{publishing}/dagRuns")["dag_runs"]
        return runs[0]["dag_run_id"] if runs else None

    publish = Run(stack, publishing, wait_for(started, timeout=120, what="the DAG that publishes"))
    assert publish.wait() == "success"
    assert publish.api.xcom(publishing, publish.id, "publish") == f"{image['uri']} ({image['width']}x{image['height']})"


def test_asset_alias_gets_an_asset_per_image_whatever_its_name(stack: Stack) -> None:
    run = Run(stack, "e2e_aliases")
    assert run.wait() == "success"
    events = run.api.request("GET", "/assets/events?source_dag_id=e2e_aliases")["asset_events"]
    images = [run.result(task_id) for task_id in ("one", "two")]
    assert [image["uri"].partition("birne")[2] for image in images] == ["-ä #1.jpeg", "-ä #2.jpeg"]
    found = {event["uri"]: event["extra"] for event in events if event["source_run_id"] == run.id}
    folder = f"s3://flux/e2e/{quote(run.id, safe=':+')}"
    assert found == {f"{folder}/birne-%C3%A4%20%23{lot}.jpeg": image for lot, image in zip("12", images, strict=True)}
