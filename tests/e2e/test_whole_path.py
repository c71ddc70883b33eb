"""From a prompt to S3 in a running Airflow: deferred for real, resumed for real, seen through the REST API."""

from __future__ import annotations

from typing import Any

import pytest

from tests.e2e.conftest import Stack
from tests.e2e.running import RUN_TIMEOUT, check_image, keep_pending

pytestmark = pytest.mark.e2e


def run(stack: Stack, dag_id: str, deferred: frozenset[str] = frozenset()) -> tuple[str, str, dict[str, set[str]]]:
    """Run a DAG; return its run id, its final state, and the states that each task was seen in.

    :param deferred: Every job stays pending until these tasks have been deferred.
    """
    seen: dict[str, set[str]] = {}
    if deferred:
        keep_pending(stack)

    def note(ti: dict[str, Any]) -> None:
        seen.setdefault(ti["task_id"], set()).add(ti["state"])
        if ti["state"] == "deferred" and all("deferred" in seen.get(task_id, ()) for task_id in deferred):
            stack.flux.clear_faults()

    stack.airflow.api.wait_for_dag(dag_id)
    run_id = stack.airflow.api.trigger(dag_id)
    state = stack.airflow.api.wait_for_run(dag_id, run_id, timeout=RUN_TIMEOUT, on_change=note)
    return run_id, state, seen


def test_quickstart_defers_and_stores_its_images_in_s3(stack: Stack) -> None:
    generating = frozenset({"generate_hero", "generate_icon", "generate_banner"})
    run_id, state, _ = run(stack, "flux_quickstart", deferred=generating)
    assert state == "success"
    for task_id, map_index in (("hero_to_s3", -1), ("generate_icon", -1), ("generate_banner", 0)):
        check_image(stack, stack.airflow.api.xcom("flux_quickstart", run_id, task_id, map_index))
    stats = stack.flux.stats()
    assert (stats["submits"], stats["submit_requests"], stats["credential_leaks"]) == (3, 3, 0)


def test_transfer_waits_for_jobs_that_the_generate_task_only_submitted(stack: Stack) -> None:
    run_id, state, seen = run(stack, "e2e_not_waited", deferred=frozenset({"upload"}))
    assert state == "success"
    assert "deferred" not in seen["submit"]
    for map_index in (0, 1):
        image = stack.airflow.api.xcom("e2e_not_waited", run_id, "upload", map_index)
        assert image["id"] == stack.airflow.api.xcom("e2e_not_waited", run_id, "submit", map_index)["id"]
        check_image(stack, image)


def test_tasks_without_deferral_succeed(stack: Stack) -> None:
    run_id, state, seen = run(stack, "e2e_blocking")
    assert state == "success"
    assert "deferred" not in seen["generate"] | seen["upload"]
    check_image(stack, stack.airflow.api.xcom("e2e_blocking", run_id, "upload"))


def test_moderated_prompt_fails_without_retries_and_logs_why(stack: Stack) -> None:
    run_id, state, _ = run(stack, "e2e_moderated")
    assert state == "failed"
    task = stack.airflow.api.task_instance("e2e_moderated", run_id, "generate")
    assert (task["state"], task["try_number"], task["max_tries"]) == ("failed", 1, 2)
    log = stack.airflow.api.task_log("e2e_moderated", run_id, "generate")
    assert f"Job {stack.flux.stats()['jobs'][0]['id']} was moderated" in log
    assert "does not bill refused requests" in log


@pytest.mark.parametrize(("key", "works"), [("the-key-of-the-account", True), ("a-wrong-key-it-is", False)])
def test_connection_test_button(stack: Stack, key: str, works: bool) -> None:
    answer = stack.airflow.api.test_connection(
        {"connection_id": "flux_tested", "conn_type": "flux", "host": stack.flux.url, "password": key}
    )
    assert answer["status"] is works
    assert ("The key is valid" if works else "the key is invalid") in answer["message"]
    assert key not in answer["message"]
    assert stack.flux.stats()["submit_requests"] == 0
