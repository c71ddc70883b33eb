"""Run again by a user or by Airflow: cleared, timed out, backfilled, marked failed, with another list. Paid once."""

from __future__ import annotations

import json

import airflow.sdk
import pytest
from airflow.triggers.base import BaseTrigger

from tests.e2e.conftest import Stack
from tests.e2e.running import Run, check_image, hold, jobs_of, until

pytestmark = pytest.mark.e2e


def test_a_clear_while_deferred_and_one_after_success(stack: Stack) -> None:
    hold(stack)
    run = Run(stack, "e2e_money")
    run.wait_for_task("generate", "deferred")
    polls = stack.flux.stats()["polls"]
    run.clear("generate")
    until(lambda: stack.flux.stats()["polls"] > polls, "the next try to poll")
    stack.flux.clear_faults()
    assert run.wait() == "success"
    first = run.check()
    run.clear("generate")
    assert run.wait() == "success"
    second = run.check()
    assert (second["id"], second["sha256"], second["reused"]) == (first["id"], first["sha256"], True)


def test_a_task_that_is_marked_failed_says_what_became_of_its_job(stack: Stack) -> None:
    hold(stack)
    run = Run(stack, "e2e_money")
    run.wait_for_task("generate", "deferred")
    job_id = stack.flux.stats()["jobs"][0]["id"]
    polls = stack.flux.stats()["polls"]
    until(lambda: stack.flux.stats()["polls"] > polls, "the triggerer to poll")
    run.api.set_state("e2e_money", run.id, "generate", "failed")
    if hasattr(BaseTrigger, "on_kill"):
        says = f"Job {job_id} is still running: the API cannot cancel jobs"
        until(lambda: says in run.log("generate"), "the trigger's last words")
    assert run.wait() == "failed"
    stack.flux.clear_faults()
    run.clear("generate")
    assert run.wait() == "success"
    assert run.check()["id"] == job_id


def test_runs_that_time_out_are_cleared_and_backfilled(stack: Stack) -> None:
    stack.flux.settings(duration=1)
    hold(stack, "outlasted")
    outlasted = Run(stack, "e2e_timeout")

    # Meanwhile: a day's run succeeds, is cleared as a whole, is deleted, and is made anew by a backfill.
    date = "2026-01-01T00:00:00Z"
    daily = Run(stack, "e2e_daily", logical_date=date)
    assert daily.wait() == "success"
    first = daily.told("daily")
    daily.clear()
    assert daily.wait() == "success"
    assert daily.told("daily") == {**first, "reused": True}
    daily.api.delete_run("e2e_daily", daily.id)
    backfill = Run(stack, "e2e_daily", daily.api.backfill("e2e_daily", date))
    assert backfill.id != daily.id
    assert backfill.wait() == "success"
    assert backfill.told("daily") == {**first, "reused": True}
    check_image(stack, first)
    assert len(jobs_of(stack, "daily")) == 1

    assert outlasted.wait() == "failed"
    assert outlasted.task("outlasted")["state"] == "skipped"
    job_id = jobs_of(stack, "outlasted")[0]["id"]
    stack.flux.clear_faults()
    outlasted.clear()
    assert outlasted.wait() == "success"
    assert outlasted.check("outlasted")["id"] == job_id


def test_a_mapped_list_that_changes_between_tries(stack: Stack) -> None:
    """What lies at a position, in S3 or in the task state store, is another recipe's."""
    prompts = stack.airflow.folder / "prompts.json"
    prompts.write_text(json.dumps(["a pear", "a fig"]))
    stack.flux.settings(duration=1)
    stack.flux.fault(on="download", http=500, match="a pear", times=None)
    run = Run(stack, "e2e_mapped")
    assert run.wait() == "failed"
    assert run.told("stored", 0) is None

    stack.flux.clear_faults()
    prompts.write_text(json.dumps(["a plum", "a pear", "a fig"]))
    run.clear()
    assert run.wait() == "success"
    prompt_of = {job["id"]: job["prompt"] for job in stack.flux.stats()["jobs"]}
    for task_id in ("stored", "not_stored"):
        told = [run.told(task_id, map_index) for map_index in range(3)]
        assert [prompt_of[one["id"]] for one in told] == ["a plum", "a pear", "a fig"]
    for map_index in range(3):
        check_image(stack, run.told("stored", map_index))
    assert len(prompt_of) == 4 + 6, "every position has another recipe than before"


@pytest.mark.skipif(not hasattr(airflow.sdk, "RetryRule"), reason="retry policies came with Airflow 3.3")
def test_a_retry_policy_tells_errors_apart(stack: Stack) -> None:
    """Without it, the next try would come after a day."""
    stack.flux.settings(duration=1)
    stack.flux.fault(on="submit", http=503, match="refused", times=None)
    run = Run(stack, "e2e_retry_policy")
    until(lambda: run.task("refused")["try_number"] > 1, "the policy's retry")
    stack.flux.clear_faults()
    assert run.wait() == "success"
    run.check("refused")
    assert "FluxServiceError" in run.log("refused")
