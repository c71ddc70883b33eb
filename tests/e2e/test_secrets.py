"""No key, prompt or signed URL is in Airflow's database, in a log or in a receipt.

The Airflow is one of its own: it logs at DEBUG, and waits as long as by default between a deferral and its resumption.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import airflow
import pytest
from airflow.sdk.execution_time import context as airflow_context
from packaging.version import Version

from tests.e2e.conftest import Stack, running_stack
from tests.e2e.running import RUN_TIMEOUT, keep_pending
from tests.servers.seaweed import SeaweedFS

pytestmark = pytest.mark.e2e

_DEBUG_LINE = re.compile(r'\[debug +\]|"level": ?"debug"| DEBUG ')
"""A line at DEBUG, as text, as JSON or as the standard library formats it: which one depends on Airflow's version."""

HAS_TASK_STATE = hasattr(airflow_context, "NEVER_EXPIRE")  # it came with Airflow 3.3


@pytest.fixture
def debug_stack(tmp_path: Path, s3: SeaweedFS) -> Iterator[Stack]:
    with running_stack(tmp_path, s3, AIRFLOW__LOGGING__LOGGING_LEVEL="DEBUG") as stack:
        yield stack


def test_secrets_are_neither_stored_nor_logged(debug_stack: Stack) -> None:
    stack, api, home = debug_stack, debug_stack.airflow.api, debug_stack.airflow.folder
    deferred = ("generate", "upload")
    keep_pending(stack)
    api.wait_for_dag("e2e_secrets")
    run_id = api.trigger("e2e_secrets")
    for task_id in deferred:
        api.wait_for_task("e2e_secrets", run_id, task_id, ["deferred"], timeout=RUN_TIMEOUT)
    triggers = dump(home, "trigger", "task_instance")
    api.pause("e2e_secrets")  # so that the tasks are not resumed before their events are read
    stack.flux.clear_faults()
    for task_id in deferred:
        api.wait_for_task("e2e_secrets", run_id, task_id, ["scheduled"], timeout=RUN_TIMEOUT)
    events = dump(home, "task_instance")
    api.pause("e2e_secrets", False)
    assert api.wait_for_run("e2e_secrets", run_id, timeout=RUN_TIMEOUT) == "success"

    results = dump(home, "xcom", "rendered_task_instance_fields")
    logs = "\n".join(path.read_text(errors="replace") for path in home.rglob("*.log"))
    receipts = {**receipts_in(stack), "task state": dump(home, "task_state_store")}
    (of_generate,) = (text for key, text in receipts.items() if f"{run_id}/generate" in key)
    for job_id in (api.xcom("e2e_secrets", run_id, task_id)["id"] for task_id in deferred):
        assert job_id in triggers, "the trigger's row was seen"
        assert job_id in events, "the event was seen in next_kwargs"
        assert job_id in results, "the XCom was seen"
        assert f"Stored the image of job {job_id}" in logs, "the task's log was seen"
        assert any(job_id in text for text in receipts.values()), "the receipt was seen"
    assert "hooks.example" in of_generate, "the receipt has the webhook"
    assert _DEBUG_LINE.search(logs), "the log has all levels"
    assert api.xcom("e2e_secrets", run_id, "submit")["id"] in receipts["task state"] or not HAS_TASK_STATE

    if Version(airflow.__version__) < Version("3.2"):
        # At DEBUG it logs every task's rendered fields itself, before any provider could mask them.
        logs = "\n".join(line for line in logs.splitlines() if "SetRenderedFields" not in line)
    everything = "\n".join([triggers, events, results, logs, *receipts.values()])
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
    """Return every row of these tables of Airflow's database, as text; nothing of a table that does not exist."""
    (file,) = home.rglob("airflow.db")
    database = sqlite3.connect(f"file:{file}?mode=ro", uri=True)
    try:
        existing = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
        return "\n".join(
            str(row) for table in tables if table in existing for row in database.execute(f"SELECT * FROM {table}")
        )
    finally:
        database.close()
