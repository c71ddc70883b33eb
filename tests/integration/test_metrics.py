"""What the operators count in Airflow's metrics, and what their logs say of the money."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException
from airflow.sdk.execution_time import context as airflow_context

from airflow_provider_flux import metrics
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import FluxError
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
from tests.conftest import both_gateways
from tests.integration.running import TaskState, run
from tests.servers.seaweed import SeaweedFS


class Recorder:
    """Takes what Airflow's Stats would send."""

    def __init__(self) -> None:
        self.sent: list[tuple[str, Any, dict[str, str]]] = []

    def incr(self, name: str, count: float = 1, *, tags: dict[str, str]) -> None:
        self.sent.append((name, count, tags))

    timing = incr


@pytest.fixture
def stats(monkeypatch: pytest.MonkeyPatch) -> Recorder:
    recorder, real = Recorder(), metrics._stats()
    assert callable(real.incr)
    assert callable(real.timing)
    monkeypatch.setattr(metrics, "_stats", lambda: recorder)
    return recorder


def generate(**arguments: Any) -> FluxGenerateOperator:
    return FluxGenerateOperator(
        task_id="generate", **{"model": "flux-pro-1.1", "prompt": "a pear", "defer_after": 0, **arguments}
    )


@both_gateways
def test_image_and_cost_are_counted_once(
    flux: FluxEmulator,
    stats: Recorder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = f"file://{tmp_path}/pear.jpeg"
    told, _ = run(generate(output_uri=uri))
    names = {name: (value, tags) for name, value, tags in stats.sent}
    gateway = flux.stats()["jobs"][0]["dialect"]
    tags = {"model": "flux-pro-1.1", "gateway": gateway, "dag_id": "dag"}
    assert all(sent == tags for _, _, sent in stats.sent)
    assert list(names) == ["flux.submitted", "flux.ready", "flux.cost", "flux.duration", "flux.wait"]
    assert names["flux.cost"] == (4, tags)
    assert names["flux.duration"][0].total_seconds() == pytest.approx(told["duration"], abs=1e-3)
    stats.sent.clear()
    run(generate(output_uri=uri))
    assert stats.sent == [("flux.reused", 1, tags)]
    said = f"Paid 4 credits ($0.04) for job {told['id']}"
    assert capsys.readouterr().out.count(said) == 1


def test_a_cost_that_comes_with_the_result_counts(flux: FluxEmulator, stats: Recorder) -> None:
    told, _ = run(generate(model="flux-3-image"))
    assert told["cost"] == 4.8
    assert ("flux.cost", 4.8, stats.sent[0][2]) in stats.sent


@pytest.mark.skipif(not hasattr(airflow_context, "NEVER_EXPIRE"), reason="needs the task state store of Airflow 3.3")
def test_reused_job_counts_no_cost(
    flux_connection: FluxEmulator, stats: Recorder, capsys: pytest.CaptureFixture[str]
) -> None:
    state = TaskState()
    told, _ = run(generate(), state=state)
    stats.sent.clear()
    again, _ = run(generate(), state=state)
    assert again == {**told, "reused": True, "paid_by": again["paid_by"]}
    assert again["paid_by"]["run_id"] == "run-1"
    assert [name for name, *_ in stats.sent] == ["flux.reused"]
    assert capsys.readouterr().out.count(f"Paid 4 credits ($0.04) for job {told['id']}") == 1


def test_upload_counts_the_cost_of_an_unawaited_job(
    flux_connection: FluxEmulator, stats: Recorder, s3: SeaweedFS
) -> None:
    generation, _ = run(generate(wait_for_completion=False))
    run(FluxToS3Operator(task_id="upload", generation=generation, s3_key="s3://flux/pear.jpeg"))
    names = [name for name, *_ in stats.sent]
    assert names == ["flux.submitted", "flux.ready", "flux.cost", "flux.duration", "flux.wait"]
    assert {tags["dag_id"] for *_, tags in stats.sent} == {"dag"}
    stats.sent.clear()
    waited, _ = run(generate(seed=1))
    run(FluxToS3Operator(task_id="upload", generation=waited, s3_key="s3://flux/fig.jpeg"))
    assert [name for name, *_ in stats.sent].count("flux.cost") == 1


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"prompt": "nsfw"}, "FluxModeratedError"),
        ({"prompt": "nsfw", "on_moderated": "skip"}, "FluxModeratedError"),
        ({"width": 3}, "FluxBadRequestError"),
    ],
)
def test_failures_are_counted_by_reason(
    flux: FluxEmulator, stats: Recorder, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises((FluxError, AirflowSkipException)):
        run(generate(**arguments))
    name, _, tags = stats.sent[-1]
    assert (name, tags["reason"], tags["model"], tags["dag_id"]) == ("flux.failed", reason, "flux-pro-1.1", "dag")


def test_metrics_error_does_not_fail_the_task(
    flux_connection: FluxEmulator, stats: Recorder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise OSError("no route to the collector")

    monkeypatch.setattr(stats, "incr", fail)
    assert run(generate())[0]["status"] == "Ready"
    assert caplog.text.count("Could not emit metrics (OSError: no route to the collector)") == 2
