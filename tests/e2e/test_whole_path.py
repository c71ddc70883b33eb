"""From a prompt to S3 in a running Airflow: deferred for real, resumed for real, seen through the REST API."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import airflow
import pytest
from airflow.sdk.execution_time import context as airflow_context
from packaging.version import Version

from tests.e2e.conftest import Stack
from tests.e2e.running import RUN_TIMEOUT, check_image, hold

pytestmark = pytest.mark.e2e

HAS_TASK_STATE = hasattr(airflow_context, "NEVER_EXPIRE")  # it came with Airflow 3.3


def run(stack: Stack, dag_id: str, deferred: frozenset[str] = frozenset()) -> tuple[str, str, dict[str, set[str]]]:
    """Run a DAG; return its run id, its end, and the states that each task was seen in.

    :param deferred: No job gets ready before these tasks have been deferred.
    """
    seen: dict[str, set[str]] = {}
    if deferred:
        hold(stack)

    def note(ti: dict[str, Any]) -> None:
        seen.setdefault(ti["task_id"], set()).add(ti["state"])
        if ti["state"] == "deferred" and all("deferred" in seen.get(task_id, ()) for task_id in deferred):
            stack.flux.clear_faults()

    stack.airflow.api.wait_for_dag(dag_id)
    run_id = stack.airflow.api.trigger(dag_id)
    state = stack.airflow.api.wait_for_run(dag_id, run_id, timeout=RUN_TIMEOUT, on_change=note)
    return run_id, state, seen


def test_quickstart_is_deferred_and_its_images_lie_in_s3(stack: Stack) -> None:
    generating = frozenset({"generate_hero", "generate_icon", "generate_banner"})
    run_id, state, _ = run(stack, "flux_quickstart", deferred=generating)
    assert state == "success"
    for task_id, map_index in (("hero_to_s3", -1), ("generate_icon", -1), ("generate_banner", 0)):
        check_image(stack, stack.airflow.api.xcom("flux_quickstart", run_id, task_id, map_index))
    stats = stack.flux.stats()
    assert (stats["submits"], stats["submit_requests"], stats["credential_leaks"]) == (3, 3, 0)


def test_jobs_that_nobody_waited_for_are_waited_for_by_the_transfer(stack: Stack) -> None:
    run_id, state, seen = run(stack, "e2e_not_waited", deferred=frozenset({"upload"}))
    assert state == "success"
    assert "deferred" not in seen["submit"]
    for map_index in (0, 1):
        told = stack.airflow.api.xcom("e2e_not_waited", run_id, "upload", map_index)
        assert told["id"] == stack.airflow.api.xcom("e2e_not_waited", run_id, "submit", map_index)["id"]
        check_image(stack, told)


def test_without_deferral(stack: Stack) -> None:
    run_id, state, seen = run(stack, "e2e_blocking")
    assert state == "success"
    assert "deferred" not in seen["generate"] | seen["upload"]
    check_image(stack, stack.airflow.api.xcom("e2e_blocking", run_id, "upload"))


def test_a_moderated_prompt_fails_once_and_says_why(stack: Stack) -> None:
    run_id, state, _ = run(stack, "e2e_moderated")
    assert state == "failed"
    task = stack.airflow.api.task_instance("e2e_moderated", run_id, "generate")
    assert (task["state"], task["try_number"], task["max_tries"]) == ("failed", 1, 2)
    log = stack.airflow.api.task_log("e2e_moderated", run_id, "generate")
    assert f"Job {stack.flux.stats()['jobs'][0]['id']} was moderated" in log
    assert "does not bill moderated jobs" in log


def test_no_secret_is_stored_or_logged(stack: Stack) -> None:
    api, home, deferred = stack.airflow.api, stack.airflow.folder, ("generate", "upload")
    hold(stack)
    api.wait_for_dag("e2e_secrets")
    run_id = api.trigger("e2e_secrets")
    for task_id in deferred:
        api.wait_for_task("e2e_secrets", run_id, task_id, ["deferred"], timeout=RUN_TIMEOUT)
    triggers = dump(home, "trigger", "task_instance")
    api.pause("e2e_secrets")  # so that nobody resumes the tasks before we look
    stack.flux.clear_faults()
    for task_id in deferred:
        api.wait_for_task("e2e_secrets", run_id, task_id, ["scheduled"], timeout=RUN_TIMEOUT)
    events = dump(home, "task_instance")
    api.pause("e2e_secrets", False)
    assert api.wait_for_run("e2e_secrets", run_id, timeout=RUN_TIMEOUT) == "success"

    told = dump(home, "xcom", "rendered_task_instance_fields")
    logs = "\n".join(path.read_text(errors="replace") for path in home.rglob("*.log"))
    receipts = {**receipts_in(stack), "task state": dump(home, "task_state_store")}
    (of_generate,) = (text for key, text in receipts.items() if f"{run_id}/generate" in key)
    for job_id in (api.xcom("e2e_secrets", run_id, task_id)["id"] for task_id in deferred):
        assert job_id in triggers, "the trigger's row was seen"
        assert job_id in events, "the event was seen in next_kwargs"
        assert job_id in told, "the XCom was seen"
        assert f"Stored the image of job {job_id}" in logs, "the task's log was seen"
        assert any(job_id in text for text in receipts.values()), "the receipt was seen"
    assert "hooks.example" in of_generate, "the receipt tells of the webhook"
    assert api.xcom("e2e_secrets", run_id, "submit")["id"] in receipts["task state"] or not HAS_TASK_STATE

    if Version(airflow.__version__) < Version("3.2"):
        # At DEBUG it logs every task's rendered fields itself, before any provider could mask them.
        logs = "\n".join(line for line in logs.splitlines() if "SetRenderedFields" not in line)
    everything = "\n".join([triggers, events, told, logs, *receipts.values()])
    for secret in ("the-key-of-the-account", "s3cr3t-hook", "sig="):
        assert secret not in everything, secret
    fired = "".join(line for line in logs.splitlines() if "Trigger fired event" in line)
    assert "a pear that nobody may read of" not in triggers + events + fired + dump(home, "trigger", "xcom")


def receipts_in(stack: Stack) -> dict[str, str]:
    """Return every receipt in the bucket, by key."""
    s3, bucket = stack.s3.client(), stack.s3.bucket
    keys = [item["Key"] for item in s3.list_objects_v2(Bucket=bucket)["Contents"]]
    return {key: s3.get_object(Bucket=bucket, Key=key)["Body"].read().decode() for key in keys if key.endswith(".json")}


def dump(home: Path, *tables: str) -> str:
    """Return every row of these tables of Airflow's database, as text; of one that it has not: nothing."""
    (file,) = home.rglob("airflow.db")
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        there = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        return "\n".join(
            str(row) for table in tables if table in there for row in database.execute(f"SELECT * FROM {table}")
        )
    finally:
        database.close()


@pytest.mark.parametrize(("key", "works"), [("the-key-of-the-account", True), ("a-wrong-key-it-is", False)])
def test_the_connection_s_test_button(stack: Stack, key: str, works: bool) -> None:
    answer = stack.airflow.api.test_connection(
        {"connection_id": "flux_tested", "conn_type": "flux", "host": stack.flux.url, "password": key}
    )
    assert answer["status"] is works
    assert ("The key is valid" if works else "the key is wrong") in answer["message"]
    assert key not in answer["message"]
    assert stack.flux.stats()["submit_requests"] == 0
