"""Never pay twice, never lose a paid image: processes are killed and held while a real Airflow runs, S3 goes away.

Every case ends with one submit and one stored image, or with the error that it names. Tasks that break in the same
way do so side by side in one run.
"""

from __future__ import annotations

import re
import signal
import time

import pytest
from airflow import __version__ as airflow_version
from packaging.version import Version

from tests.e2e.conftest import Stack
from tests.e2e.running import Run, hold, jobs_of, polls_of, until

pytestmark = pytest.mark.e2e


def test_workers_that_are_killed(stack: Stack) -> None:
    """While waiting, downloading and uploading, and between the submit and its receipt."""
    flux = stack.flux
    flux.settings(duration=1)
    for task_id in ("waiting", "uploading"):
        hold(stack, task_id)
    flux.fault(on="download", match="downloading", delay=100)
    for task_id in ("submitting", "orphan"):
        flux.fault(on="submit", match=task_id, accept=True, delay=100)
    run = Run(stack, "e2e_on_worker")
    until(lambda: all(fault["hits"] for fault in flux.faults()), "every task to be where it shall be killed")
    with stack.s3.paused():
        flux.clear_faults()
        hold(stack, "waiting")
        until(lambda: jobs_of(stack, "uploading")[0]["downloads"], "the image that is to be uploaded")
        for task_id in ("waiting", "downloading", "uploading", "submitting", "orphan"):
            run.kill(task_id)
    flux.clear_faults()

    assert run.wait() == "failed"
    for task_id in ("waiting", "downloading", "uploading"):
        run.check(task_id)
    run.check("submitting", submits=2)
    assert run.task("orphan")["state"] == "failed"
    assert "FluxOrphanError: An earlier attempt started a submit" in run.log("orphan", 2)
    assert len(jobs_of(stack, "orphan")) == 1
    for task_id in ("waiting", "downloading", "uploading", "submitting", "orphan"):
        assert run.task(task_id)["try_number"] == 2


def test_a_triggerer_that_is_killed_and_started_again(stack: Stack) -> None:
    """While it waits and while it stores."""
    hold(stack, "waiting")
    stack.flux.fault(on="download", match="storing", delay=100)
    run = Run(stack, "e2e_on_triggerer")
    run.wait_for_task("waiting", "deferred")
    until(lambda: all(fault["hits"] for fault in stack.flux.faults()), "the triggerer to wait and to store")
    stack.airflow.stop_component("triggerer", signal.SIGKILL)
    stack.flux.clear_faults()
    stack.airflow.start_component("triggerer")
    for task_id in ("waiting", "storing"):
        run.check(task_id)
        assert run.task(task_id)["try_number"] == 1
    assert run.objects() == {"waiting.jpeg", "waiting.jpeg.json", "storing.jpeg", "storing.jpeg.json"}


def test_a_triggerer_that_is_held_until_another_took_over(stack: Stack) -> None:
    """When it goes on, it stores what the other one has stored already, and waits no more."""
    airflow, flux = stack.airflow, stack.flux
    hold(stack, "waiting")
    flux.fault(on="download", match="storing", delay=5)
    run = Run(stack, "e2e_on_triggerer")
    run.wait_for_task("waiting", "deferred")
    until(lambda: all(fault["hits"] for fault in flux.faults()), "the first triggerer to wait and to store")
    airflow.signal_component("triggerer", signal.SIGSTOP)
    try:
        airflow.start_component("second-triggerer")
        told = run.check("storing")
        stored = run.receipt("storing")["times"]["stored"]
        polls = polls_of(stack, "waiting")
        until(lambda: polls_of(stack, "waiting") > polls, "the second triggerer to wait")
        airflow.signal_component("triggerer", signal.SIGCONT)
        until(lambda: jobs_of(stack, "storing")[0]["downloads"] == 2, "the first triggerer to fetch the image too")
        flux.clear_faults()
        assert run.wait() == "success"
    finally:
        airflow.signal_component("triggerer", signal.SIGCONT)
        airflow.stop_component("second-triggerer", signal.SIGKILL)
    if airflow.processes["triggerer"].returncode is not None:
        # Before 3.3, a connection that is looked up in a thread can end the triggerer (apache/airflow#64620).
        assert Version(airflow_version) < Version("3.3"), "it went on"
        airflow.stop_component("triggerer")  # what is left of it
        airflow.start_component("triggerer")
    assert run.check("storing") == told
    assert run.receipt("storing")["times"]["stored"] == stored, "it keeps what the other one has stored"
    run.check("waiting")
    assert run.objects() == {"waiting.jpeg", "waiting.jpeg.json", "storing.jpeg", "storing.jpeg.json"}


def test_s3_that_is_down_when_the_image_is_ready(stack: Stack) -> None:
    """Both where the worker stores the image and where the triggerer does."""
    hold(stack)
    run = Run(stack, "e2e_on_both")
    run.wait_for_task("triggerer", "deferred")
    until(lambda: polls_of(stack, "worker"), "the worker to poll")
    stack.s3.stop()
    try:
        stack.flux.clear_faults()
        until(lambda: run.task("worker")["try_number"] > 1, "the worker's next try")
        until(lambda: run.task("triggerer")["try_number"] > 1, "the next try of the task whose triggerer failed")
    finally:
        stack.s3.start()
    for task_id in ("worker", "triggerer"):
        told = run.check(task_id)
        log = run.log(task_id)
        assert re.search(f"FluxStoreError: .*Job {told['id']} .*resumes the same job and is not billed again", log)


def test_an_image_outlives_a_worker_queue_that_is_stuck_longer_than_its_link(stack: Stack) -> None:
    stack.flux.settings(duration=8, link_ttl=3)
    run = Run(stack, "e2e_money")
    run.wait_for_task("generate", "deferred")
    run.api.pause("e2e_money")
    until(lambda: "generate.jpeg" in run.objects(), "the triggerer to store the image")
    time.sleep(4)  # the link is dead now
    run.api.pause("e2e_money", False)
    run.check()
    assert stack.flux.stats()["downloads"] == 1
