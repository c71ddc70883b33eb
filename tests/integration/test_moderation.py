"""``moderation_retries``: after output moderation alone, with another seed, and no more often than the receipt says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.decorators.flux import FluxDecoratedOperator
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from tests.integration.running import context, run

RECIPE: dict[str, Any] = {"model": "flux-dev", "prompt": "a red kite", "width": 256, "height": 256}
PRICE = 2.5


class Killed(BaseException):
    """A worker's SIGKILL, as far as one process can play it."""


def generate(folder: Path, **arguments: Any) -> dict[str, Any]:
    given = {**RECIPE, "moderation_retries": 2, "output_uri": f"file://{folder}/kite.jpeg", **arguments}
    return run(FluxGenerateOperator(task_id="generate", **given))[0]


def receipt(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "kite.jpeg.json").read_text())
    return found


def seeds(flux: FluxEmulator) -> list[int | None]:
    return [job["parameters"].get("seed") for job in flux.stats()["jobs"]]


def job_ids(flux: FluxEmulator) -> list[str]:
    return [job["id"] for job in flux.stats()["jobs"]]


@pytest.mark.parametrize("defer_after", [0, 5])
def test_another_seed_is_submitted_and_both_jobs_are_counted(
    flux: FluxEmulator, tmp_path: Path, defer_after: float, caplog: pytest.LogCaptureFixture
) -> None:
    flux.fault(on="poll", status="Content Moderated")
    result = generate(tmp_path, defer_after=defer_after, moderation_retries="1")
    first, second = job_ids(flux)
    assert (result["id"], result["moderated"], result["cost"]) == (second, [first], 2 * PRICE)
    assert seeds(flux) == [None, result["seed"]]
    written = receipt(tmp_path)
    assert (written["moderated"], [job["id"] for job in written["duplicates"]]) == ([first], [first])
    assert "Submitting again with another seed (moderation_retries, 1 of 1)" in caplog.text
    again = generate(tmp_path)
    assert (again["moderated"], again["cost"], flux.stats()["submits"]) == ([first], 2 * PRICE, 2)


@pytest.mark.parametrize("defer_after", [0, 5])
def test_error_counts_all_jobs_that_may_be_billed(flux: FluxEmulator, tmp_path: Path, defer_after: float) -> None:
    flux.fault(on="poll", status="Content Moderated", times=None)
    with pytest.raises(errors.FluxContentModeratedError, match="the last of 3 moderated jobs") as caught:
        generate(tmp_path, defer_after=defer_after)
    assert all(job_id in str(caught.value.billing) for job_id in job_ids(flux))
    assert len(set(seeds(flux))) == 3
    # A person who clears the task asks for one more job, not for three.
    with pytest.raises(errors.FluxContentModeratedError, match="the last of 4 moderated jobs"):
        generate(tmp_path, defer_after=defer_after)
    assert flux.stats()["submits"] == len(receipt(tmp_path)["moderated"]) == 4


@pytest.mark.parametrize(
    ("status", "arguments"),
    [
        ("Request Moderated", {}),
        ("Content Moderated", {"seed": 7}),
        ("Content Moderated", {"parameters": {"seed": "7"}}),
        ("Content Moderated", {"moderation_retries": 0}),
        ("Error", {}),
    ],
)
def test_no_other_outcome_and_no_seed_of_the_author_is_submitted_again(
    flux: FluxEmulator, tmp_path: Path, status: str, arguments: dict[str, Any]
) -> None:
    flux.fault(on="poll", status=status)
    with pytest.raises(errors.FluxError):
        generate(tmp_path, **arguments)
    assert flux.stats()["submits"] == 1


def test_model_without_a_seed_is_submitted_again_unchanged(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="poll", status="Content Moderated")
    arguments = {"model": "flux-3-image", "width": None, "height": None}
    assert len(generate(tmp_path, **arguments)["moderated"]) == 1
    first, second = (job["parameters"] for job in flux.stats()["jobs"])
    assert first == second


@pytest.mark.parametrize("reuse", ["run", "never"])
def test_count_survives_a_worker_that_is_killed_before_the_next_submit(
    flux: FluxEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reuse: str
) -> None:
    flux.fault(on="poll", status="Content Moderated", times=None)
    submit, submits = FluxHook.submit, 0

    def killed(hook: FluxHook, *arguments: Any, **options: Any) -> Any:
        nonlocal submits
        submits += 1
        if submits == 2:
            raise Killed
        return submit(hook, *arguments, **options)

    monkeypatch.setattr(FluxHook, "submit", killed)
    with pytest.raises(Killed):
        generate(tmp_path, moderation_retries=1, reuse=reuse)
    with pytest.raises(errors.FluxContentModeratedError, match="the last of 2 moderated jobs"):
        generate(tmp_path, moderation_retries=1, reuse=reuse)
    assert (flux.stats()["submits"], len(set(seeds(flux)))) == (2, 2)


def test_retry_finds_the_newest_job(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="poll", status="Content Moderated")
    flux.fault(on="poll", status="Pending", times=None)
    with pytest.raises(errors.FluxTimeoutError):
        generate(tmp_path, timeout=1, deferrable=False)
    flux.clear_faults()
    result = generate(tmp_path)
    assert (job_ids(flux)[1], [job_ids(flux)[0]]) == (result["id"], result["moderated"])
    assert flux.stats()["submits"] == 2


@pytest.mark.parametrize("seed", [None, 7])
def test_decorated_task_is_resumed_with_the_seed_that_its_function_chose(
    flux: FluxEmulator, tmp_path: Path, seed: int | None
) -> None:
    flux.fault(on="poll", status="Content Moderated")
    operator = FluxDecoratedOperator(
        task_id="generate",
        python_callable=lambda: {"prompt": "a red kite", "seed": seed},
        model="flux-dev",
        output_uri=f"file://{tmp_path}/kite.jpeg",
        defer_after=0,
        moderation_retries=1,
    )
    if seed is None:
        assert len(run(operator)[0]["moderated"]) == 1
    else:
        with pytest.raises(errors.FluxContentModeratedError):
            run(operator)
    assert flux.stats()["submits"] == (2 if seed is None else 1)


def batch(folder: Path, requests: list[Any], **arguments: Any) -> dict[str, Any]:
    given = {"parameters": {"width": 256, "height": 256}, "moderation_retries": 2, "on_moderated": "skip", **arguments}
    operator = FluxGenerateBatchOperator(
        task_id="generate", model="flux-dev", requests=requests, output_uri=f"file://{folder}", **given
    )
    return operator.execute(context())


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_batch_submits_again_and_counts_every_job(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="poll", status="Content Moderated", match="fig", times=2)
    flux.fault(on="poll", status="Content Moderated", match="plum", times=None)
    requests = ["a pear", "a fig", "a plum", {"prompt": "a plum", "seed": 1}, "nsfw"]
    result = batch(tmp_path, requests)
    pear, fig, plum, seeded, refused = rows(tmp_path)
    assert (result["counts"]["stored"], result["counts"]["moderated"], flux.stats()["submits"]) == (2, 3, 1 + 3 + 3 + 2)
    assert ("moderated" in pear, len(fig["moderated"]), fig["cost"]) == (False, 2, 3 * PRICE)
    assert "the last of 3 moderated jobs" in plum["error"]
    assert [row["cost"] for row in (plum, seeded, refused)] == [3 * PRICE, PRICE, None]
    assert result["cost"] == sum(row["cost"] or 0 for row in (pear, fig, plum, seeded))
    flux.clear_faults()
    again = batch(tmp_path, requests[:2])
    assert (again["counts"]["reused"], again["cost"]) == (2, 4 * PRICE)
    assert rows(tmp_path)[1]["moderated"] == fig["moderated"]


def test_max_cost_counts_moderated_jobs(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="poll", status="Content Moderated", times=None)
    for _attempt in range(2):
        result = batch(tmp_path, ["a pear"], max_cost=2 * PRICE, moderation_retries=5, on_max_cost="stop")
        assert (result["counts"]["moderated"], result["cost"]) == (1, 2 * PRICE)
    assert flux.stats()["submits"] == 2


def test_a_retry_of_a_batch_does_not_pay_for_a_withheld_image_again(flux: FluxEmulator, tmp_path: Path) -> None:
    requests = ["gore fig", "a pear"]
    flux.fault(on="poll", status="Error", match="pear")
    with pytest.raises(errors.FluxBatchError):
        batch(tmp_path, requests, moderation_retries=0)
    result = batch(tmp_path, requests, moderation_retries=0)
    assert (result["counts"]["moderated"], result["counts"]["stored"], result["cost"]) == (1, 1, 2 * PRICE)
    assert flux.stats()["submits"] == 3, "the pear failed once"
    # More retries, or another prompt, are the author's decision to pay again.
    batch(tmp_path, requests, moderation_retries=1)
    assert flux.stats()["submits"] == 4


def test_a_moderated_image_stays_moderated_if_max_cost_forbids_another_job(flux: FluxEmulator, tmp_path: Path) -> None:
    arguments = {"max_cost": PRICE, "on_max_cost": "stop"}
    with pytest.raises(errors.FluxBatchError, match="No further job is submitted: max_cost is reached"):
        batch(tmp_path, ["gore fig"], on_moderated="fail", **arguments)
    (row,) = rows(tmp_path)
    assert (row["state"], row["cost"], row["id"]) == ("moderated", PRICE, *job_ids(flux))


def test_max_cost_holds_for_withheld_images_of_unknown_price(flux: FluxEmulator, tmp_path: Path) -> None:
    unpriced = {"model": "flux-3-image", "parameters": {"resolution": "1.5k"}}
    requests = [{"prompt": f"gore {number}", **unpriced} for number in range(3)]
    with pytest.raises(errors.FluxBatchError, match=r"2 not submitted\): the API does not report the cost"):
        batch(tmp_path, requests, parameters=None, max_cost=8, on_max_cost="stop")
    assert flux.stats()["submits"] == 1
