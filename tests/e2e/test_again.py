"""Tasks that a user or Airflow runs again: cleared, timed out, backfilled, retried. Each job is paid for once."""

from __future__ import annotations

import json

import airflow.sdk
import pytest
from airflow.triggers.base import BaseTrigger

from tests.e2e.conftest import Stack
from tests.e2e.running import Run, check_image, jobs_of, keep_pending, wait_until

pytestmark = pytest.mark.e2e


def test_task_cleared_while_deferred_and_after_success_submits_once(stack: Stack) -> None:
    keep_pending(stack)
    run = Run(stack, "e2e_money")
    run.wait_for_task("generate", "deferred")
    polls = stack.flux.stats()["polls"]
    run.clear("generate")
    wait_until(lambda: stack.flux.stats()["polls"] > polls, "the next attempt to poll")
    stack.flux.clear_faults()
    assert run.wait() == "success"
    first = run.check()
    run.clear("generate")
    assert run.wait() == "success"
    second = run.check()
    assert (second["id"], second["sha256"], second["reused"]) == (first["id"], first["sha256"], True)


def test_task_marked_failed_logs_its_running_job_and_resumes_it_when_cleared(stack: Stack) -> None:
    keep_pending(stack)
    run = Run(stack, "e2e_money")
    run.wait_for_task("generate", "deferred")
    job_id = stack.flux.stats()["jobs"][0]["id"]
    polls = stack.flux.stats()["polls"]
    wait_until(lambda: stack.flux.stats()["polls"] > polls, "the triggerer to poll")
    run.api.set_state("e2e_money", run.id, "generate", "failed")
    if hasattr(BaseTrigger, "on_kill"):
        says = f"Job {job_id} is still running: the API cannot cancel jobs"
        wait_until(lambda: says in run.log("generate"), "the trigger's log line")
    assert run.wait() == "failed"
    stack.flux.clear_faults()
    run.clear("generate")
    assert run.wait() == "success"
    assert run.check()["id"] == job_id


def test_dagrun_timeout_run_clear_and_backfill_submit_once(stack: Stack) -> None:
    keep_pending(stack, "outlasted")
    outlasted = Run(stack, "e2e_timeout")

    # Meanwhile: a day's run succeeds, is cleared as a whole, is deleted, and a backfill makes it again.
    date = "2026-01-01T00:00:00Z"
    daily = Run(stack, "e2e_daily", logical_date=date)
    assert daily.wait() == "success"
    first = daily.result("daily")
    daily.clear()
    assert daily.wait() == "success"
    again = daily.result("daily")
    assert (again["paid_by"]["run_id"], again) == (daily.id, {**first, "reused": True, "paid_by": again["paid_by"]})
    daily.api.delete_run("e2e_daily", daily.id)
    backfill = Run(stack, "e2e_daily", daily.api.backfill("e2e_daily", date))
    assert backfill.id != daily.id
    assert backfill.wait() == "success"
    own = {"task_instance": {**again["task_instance"], "run_id": backfill.id}}
    assert backfill.result("daily") == {**again, "cost": 0, "cost_usd": 0, **own}
    check_image(stack, first)
    assert len(jobs_of(stack, "daily")) == 1

    assert outlasted.wait() == "failed"
    assert outlasted.task("outlasted")["state"] == "skipped"
    job_id = jobs_of(stack, "outlasted")[0]["id"]
    stack.flux.clear_faults()
    outlasted.clear()
    assert outlasted.wait() == "success"
    assert outlasted.check("outlasted")["id"] == job_id


def test_mapped_tasks_never_take_the_image_of_another_recipe_at_their_map_index(stack: Stack) -> None:
    """The receipt of a map index, in S3 or in the task state store, is that of another recipe."""
    prompts = stack.airflow.folder / "prompts.json"
    prompts.write_text(json.dumps(["a pear", "a fig"]))
    stack.flux.fault(on="download", http=500, match="a pear", times=None)
    run = Run(stack, "e2e_mapped")
    assert run.wait() == "failed"
    assert run.result("stored", 0) is None

    stack.flux.clear_faults()
    prompts.write_text(json.dumps(["a plum", "a pear", "a fig"]))
    run.clear()
    assert run.wait() == "success"
    prompt_of = {job["id"]: job["prompt"] for job in stack.flux.stats()["jobs"]}
    for task_id in ("stored", "not_stored"):
        images = [run.result(task_id, map_index) for map_index in range(3)]
        assert [prompt_of[image["id"]] for image in images] == ["a plum", "a pear", "a fig"]
    for map_index in range(3):
        check_image(stack, run.result("stored", map_index))
    assert len(prompt_of) == 4 + 6, "every position has another recipe than before"


@pytest.mark.skipif(not hasattr(airflow.sdk, "RetryRule"), reason="retry policies came with Airflow 3.3")
def test_retry_policy_sees_the_class_of_an_error(stack: Stack) -> None:
    """Without the policy, the next attempt would come after a day."""
    stack.flux.fault(on="download", http=500, match="retried", times=None)
    run = Run(stack, "e2e_retry_policy")
    wait_until(lambda: run.task("retried")["try_number"] > 1, "the policy's retry")
    stack.flux.clear_faults()
    assert run.wait() == "success"
    run.check("retried")
    assert "FluxServiceError" in run.log("retried")
