"""Never pay twice, never lose a paid image: processes of a running Airflow are killed or suspended, S3 is stopped.

Every case ends with one submit and one stored image, or with the error that it names. Tasks with the same fault run
side by side in one run.
"""

from __future__ import annotations

import re
import signal
import time

import pytest

from tests.e2e.conftest import Stack
from tests.e2e.running import Run, jobs_of, keep_pending, polls_of, wait_until
from tests.servers.airflow import KEPT

pytestmark = pytest.mark.e2e


def test_killed_workers_submit_once(stack: Stack) -> None:
    """While waiting, downloading and uploading, and between the submit and its receipt."""
    flux = stack.flux
    in_a_request = {flux.fault(on="download", match="downloading", delay=100): "downloading"}
    for task_id in ("submitting", "orphan"):
        in_a_request[flux.fault(on="submit", match=task_id, accept=True, delay=100)] = task_id
    for task_id in ("waiting", "uploading"):
        keep_pending(stack, task_id)
    run = Run(stack, "e2e_on_worker")

    def killed() -> bool:
        for fault in flux.faults():
            if fault["hits"] and fault["id"] in in_a_request:
                run.kill(in_a_request.pop(fault["id"]))
        return not in_a_request

    wait_until(killed, "every request in which a task is killed")
    wait_until(lambda: polls_of(stack, "waiting") and polls_of(stack, "uploading"), "the other tasks to poll")
    with stack.s3.paused():
        flux.clear_faults()
        keep_pending(stack, "waiting")
        wait_until(lambda: jobs_of(stack, "uploading")[0]["downloads"], "the image that is to be uploaded")
        run.kill("waiting")
        run.kill("uploading")
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


def test_restarted_triggerer_resumes_waiting_and_storing_after_a_kill(stack: Stack) -> None:
    keep_pending(stack, "waiting")
    stack.flux.fault(on="download", match="storing", delay=100)
    run = Run(stack, "e2e_on_triggerer")
    run.wait_for_task("waiting", "deferred")
    wait_until(lambda: all(fault["hits"] for fault in stack.flux.faults()), "the triggerer to wait and to store")
    stack.airflow.stop_component("triggerer", signal.SIGKILL)
    stack.flux.clear_faults()
    stack.airflow.start_component("triggerer")
    for task_id in ("waiting", "storing"):
        run.check(task_id)
        assert run.task(task_id)["try_number"] == 1
    assert run.objects() == {"waiting.jpeg", "waiting.jpeg.json", "storing.jpeg", "storing.jpeg.json"}


def test_suspended_triggerer_does_no_harm_when_it_resumes_after_another_took_over(stack: Stack) -> None:
    """It tries to store the image that the other one has stored already."""
    airflow, flux = stack.airflow, stack.flux
    keep_pending(stack, "waiting")
    flux.fault(on="download", match="storing", delay=5)
    run = Run(stack, "e2e_on_triggerer")
    run.wait_for_task("waiting", "deferred")
    wait_until(lambda: all(fault["hits"] for fault in flux.faults()), "the first triggerer to wait and to store")
    airflow.signal_component("triggerer", signal.SIGSTOP)
    try:
        airflow.start_component("second-triggerer")
        image = run.check("storing")
        stored = run.receipt("storing")["times"]["stored"]
        polls = polls_of(stack, "waiting")
        wait_until(lambda: polls_of(stack, "waiting") > polls, "the second triggerer to wait")
        airflow.signal_component("triggerer", signal.SIGCONT)
        wait_until(lambda: jobs_of(stack, "storing")[0]["downloads"] == 2, "the first triggerer to fetch the image too")
        flux.clear_faults()
        assert run.wait() == "success"
    finally:
        airflow.signal_component("triggerer", signal.SIGCONT)
        airflow.stop_component("second-triggerer", signal.SIGKILL)
    if "triggerer" not in KEPT:
        assert airflow.processes["triggerer"].returncode is None, "the triggerer ended"
    assert run.check("storing") == image
    assert run.receipt("storing")["times"]["stored"] == stored, "the receipt of the other one is kept"
    run.check("waiting")
    assert run.objects() == {"waiting.jpeg", "waiting.jpeg.json", "storing.jpeg", "storing.jpeg.json"}


def test_image_is_stored_by_a_retry_when_s3_was_down(stack: Stack) -> None:
    """For an image that the worker stores and for one that the triggerer stores."""
    keep_pending(stack)
    run = Run(stack, "e2e_on_both")
    run.wait_for_task("triggerer", "deferred")
    wait_until(lambda: polls_of(stack, "worker"), "the worker to poll")
    stack.s3.stop()
    try:
        stack.flux.clear_faults()
        wait_until(lambda: run.task("worker")["try_number"] > 1, "the worker's next attempt")
        wait_until(lambda: run.task("triggerer")["try_number"] > 1, "the attempt after the triggerer's failure")
    finally:
        stack.s3.start()
    for task_id in ("worker", "triggerer"):
        image = run.check(task_id)
        log = run.log(task_id)
        assert re.search(f"FluxStoreError: .*Job {image['id']} .*resumes the same job and is not billed again", log)


def test_image_is_stored_before_its_url_expires_though_no_worker_is_free(stack: Stack) -> None:
    stack.flux.settings(duration=6, link_ttl=3)
    run = Run(stack, "e2e_money")
    run.wait_for_task("generate", "deferred")
    run.api.pause("e2e_money")
    wait_until(lambda: "generate.jpeg" in run.objects(), "the triggerer to store the image")
    time.sleep(4)  # the URL has expired now
    run.api.pause("e2e_money", False)
    run.check()
    assert stack.flux.stats()["downloads"] == 1
