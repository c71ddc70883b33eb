"""One run of a DAG on the running Airflow, with its jobs and images."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from collections.abc import Callable
from typing import Any

from tests.e2e.conftest import Stack
from tests.servers.process import wait_for

RUN_TIMEOUT = 300


class Run:
    """A run of a DAG whose tasks come from ``generate_pear`` (``dags/cases.py``)."""

    def __init__(self, stack: Stack, dag_id: str, run_id: str | None = None, **options: Any) -> None:
        self.stack, self.api, self.dag_id = stack, stack.airflow.api, dag_id
        self.api.wait_for_dag(dag_id)
        self.id = run_id or self.api.trigger(dag_id, **options)

    def wait_for_task(self, task_id: str, *states: str) -> dict[str, Any]:
        return self.api.wait_for_task(self.dag_id, self.id, task_id, states, timeout=RUN_TIMEOUT)

    def wait(self) -> str:
        """Wait for the end; returns the run's state."""
        return self.api.wait_for_run(self.dag_id, self.id, timeout=RUN_TIMEOUT)

    def task(self, task_id: str) -> dict[str, Any]:
        return self.api.task_instance(self.dag_id, self.id, task_id)

    def log(self, task_id: str, try_number: int = 1) -> str:
        return self.api.task_log(self.dag_id, self.id, task_id, try_number)

    def result(self, task_id: str, map_index: int = -1) -> dict[str, Any]:
        """Return what the task returned."""
        result: dict[str, Any] = self.api.xcom(self.dag_id, self.id, task_id, map_index)
        return result

    def kill(self, task_id: str) -> None:
        """SIGKILL the process in which the task runs on the worker."""
        os.kill(self.task(task_id)["pid"], signal.SIGKILL)

    def clear(self, *task_ids: str) -> None:
        """Run these tasks again; without any, the whole run."""
        if task_ids:
            self.api.clear(self.dag_id, self.id, task_ids)
        else:
            self.api.clear_run(self.dag_id, self.id)
        wait_for(
            lambda: self.api.run(self.dag_id, self.id)["state"] in ("queued", "running"), timeout=30, what="the clear"
        )

    def objects(self) -> set[str]:
        """Return the keys of this run's objects in S3."""
        listed = self.stack.s3.client().list_objects_v2(Bucket=self.stack.s3.bucket, Prefix=f"e2e/{self.id}/")
        return {item["Key"].removeprefix(f"e2e/{self.id}/") for item in listed.get("Contents", [])}

    def receipt(self, task_id: str) -> dict[str, Any]:
        key = f"e2e/{self.id}/{task_id}.jpeg.json"
        return json.loads(self.stack.s3.client().get_object(Bucket=self.stack.s3.bucket, Key=key)["Body"].read())

    def check(self, task_id: str = "generate", submits: int = 1) -> dict[str, Any]:
        """Check that the task succeeded, stored its image, has a complete receipt, and submitted that many jobs."""
        assert self.wait_for_task(task_id, "success", "failed", "skipped")["state"] == "success"
        result = self.result(task_id)
        check_image(self.stack, result)
        receipt = self.receipt(task_id)
        assert (receipt["state"], receipt["job"]["id"]) == ("stored", result["id"])
        of_this_run = ("reused", "paid_by", "task_instance")
        assert receipt["image"] == {name: value for name, value in result.items() if name not in of_this_run}
        assert (len(jobs_of(self.stack, task_id)), receipt["orphans"]) == (submits, submits - 1)
        return result


def check_image(stack: Stack, result: dict[str, Any]) -> None:
    """Check that the image of a task's result is in S3."""
    bucket, _, key = result["uri"].removeprefix("s3://").partition("/")
    data = stack.s3.client().get_object(Bucket=bucket, Key=key)["Body"].read()
    assert (len(data), hashlib.sha256(data).hexdigest()) == (result["bytes"], result["sha256"])


def jobs_of(stack: Stack, task_id: str) -> list[dict[str, Any]]:
    """Return the jobs of a task that comes from ``generate_pear``."""
    return [job for job in stack.flux.stats()["jobs"] if job["prompt"] == f"a pear {task_id}"]


def polls_of(stack: Stack, task_id: str) -> int:
    return sum(job["polls"] for job in jobs_of(stack, task_id))


def keep_pending(stack: Stack, task_id: str = "") -> None:
    """Answer each poll of the task's job (or of any job) with "Pending", until the faults are cleared."""
    stack.flux.fault(on="poll", status="Pending", match=task_id, times=None)


def wait_until(condition: Callable[[], Any], what: str) -> None:
    wait_for(condition, timeout=120, what=what)
