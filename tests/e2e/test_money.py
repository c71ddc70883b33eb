"""Never pay twice, never lose a paid image: what breaks while a real Airflow runs.

Every case ends with one submit and one stored image. What needs no running Airflow (orphans, receipts, policies,
deliveries) is in ``tests/integration/test_receipts.py`` and ``test_client.py``.
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from typing import Any

import psutil
import pytest
from airflow.triggers.base import BaseTrigger

from tests.e2e.conftest import Stack
from tests.e2e.test_whole_path import RUN_TIMEOUT, check_image
from tests.servers.process import wait_for

pytestmark = pytest.mark.e2e


class Run:
    """One run of a DAG with the one task ``generate``."""

    def __init__(self, stack: Stack, dag_id: str) -> None:
        self.stack, self.api, self.dag_id = stack, stack.airflow.api, dag_id
        self.api.wait_for_dag(dag_id)
        self.id = self.api.trigger(dag_id)

    def wait_for_task(self, *states: str) -> dict[str, Any]:
        return self.api.wait_for_task(self.dag_id, self.id, "generate", list(states), timeout=RUN_TIMEOUT)

    def clear(self) -> None:
        self.api.clear(self.dag_id, self.id, ["generate"])
        wait_for(lambda: self.api.run(self.dag_id, self.id)["state"] != "success", timeout=30, what="the clear")

    def images(self) -> list[str]:
        listed = self.stack.s3.client().list_objects_v2(Bucket="flux", Prefix=f"e2e/money/{self.id}/")
        return [item["Key"] for item in listed.get("Contents", []) if not item["Key"].endswith(".json")]

    def check(self) -> dict[str, Any]:
        """Wait for the end; one submit, one image, and it is the one that the task tells of."""
        assert self.api.wait_for_run(self.dag_id, self.id, timeout=RUN_TIMEOUT) == "success"
        told: dict[str, Any] = self.api.xcom(self.dag_id, self.id, "generate")
        check_image(self.stack, told)
        assert self.stack.flux.stats()["submits"] == 1
        return told


def until(condition: Callable[[], Any], what: str) -> None:
    wait_for(condition, timeout=120, what=what)


def test_an_image_outlives_a_worker_queue_that_is_stuck_longer_than_its_link(stack: Stack) -> None:
    stack.flux.settings(duration=8, link_ttl=3)
    run = Run(stack, "e2e_money")
    run.wait_for_task("deferred")
    stack.airflow.signal_component("scheduler", signal.SIGSTOP)
    try:
        until(run.images, "the triggerer to store the image")
        time.sleep(4)  # the link is dead now
    finally:
        stack.airflow.signal_component("scheduler", signal.SIGCONT)
    run.check()
    assert stack.flux.stats()["downloads"] == 1


def test_a_triggerer_that_is_killed_and_started_again(stack: Stack) -> None:
    stack.flux.settings(duration=15)
    run = Run(stack, "e2e_money")
    run.wait_for_task("deferred")
    stack.airflow.stop_component("triggerer", signal.SIGKILL)
    stack.airflow.start_component("triggerer")
    run.check()


def test_a_worker_that_is_killed_while_it_waits(stack: Stack) -> None:
    stack.flux.settings(duration=12)
    run = Run(stack, "e2e_in_grace")
    until(lambda: stack.flux.stats()["polls"], "the task to poll")
    (scheduler, *_) = stack.airflow.pids("scheduler")
    children = psutil.Process(scheduler).children(recursive=True)
    max(children, key=lambda child: child.create_time()).kill()  # the task; its supervisor started before it
    run.check()
    assert run.api.task_instance("e2e_in_grace", run.id, "generate")["try_number"] == 2


def test_a_clear_while_deferred_and_one_after_success(stack: Stack) -> None:
    stack.flux.settings(duration=12)
    run = Run(stack, "e2e_money")
    run.wait_for_task("deferred")
    polls = stack.flux.stats()["polls"]
    run.clear()
    until(lambda: stack.flux.stats()["polls"] > polls, "the next try to poll")
    first = run.check()
    run.clear()
    second = run.check()
    assert (second["id"], second["sha256"], second["reused"]) == (first["id"], first["sha256"], True)


def test_a_task_that_is_marked_failed_says_what_became_of_its_job(stack: Stack) -> None:
    stack.flux.settings(duration=12)
    run = Run(stack, "e2e_money")
    run.wait_for_task("deferred")
    job_id = stack.flux.stats()["jobs"][0]["id"]
    until(lambda: stack.flux.stats()["polls"] > 2, "the triggerer to poll")
    run.api.set_state("e2e_money", run.id, "generate", "failed")
    if hasattr(BaseTrigger, "on_kill"):
        says = f"Job {job_id} was left behind: the API cannot cancel it"
        until(lambda: says in run.api.task_log("e2e_money", run.id, "generate"), "the trigger's last words")
    run.clear()
    assert run.check()["id"] == job_id
