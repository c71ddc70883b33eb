"""What the operators count in Airflow's metrics, and what their logs say of the money."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException

from airflow_provider_flux import metrics
from airflow_provider_flux.client.errors import FluxError
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from tests.integration.running import run


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
        task_id="generate", **{"model": "flux-pro-1.1", "prompt": "a pear", "grace": 0, **arguments}
    )


def test_an_image_is_counted_once_and_its_cost_told(
    flux: FluxEmulator,
    stats: Recorder,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    uri = f"file://{tmp_path}/pear.jpeg"
    told, _ = run(generate(output_uri=uri))
    names = {name: (value, tags) for name, value, tags in stats.sent}
    gateway = flux.stats()["jobs"][0]["dialect"]
    tags = {"model": "flux-pro-1.1", "gateway": gateway}
    assert list(names) == ["flux.submitted", "flux.ready", "flux.cost", "flux.duration", "flux.wait"]
    assert names["flux.cost"] == (4, tags)
    assert names["flux.duration"][0].total_seconds() == pytest.approx(told["duration"], abs=1e-3)
    stats.sent.clear()
    run(generate(output_uri=uri))
    assert stats.sent == [("flux.reused", 1, tags)]
    said = f"Paid 4.0 credits for job {told['id']}"
    assert capsys.readouterr().out.count(said) == 1


def test_a_cost_that_comes_with_the_result_counts(flux: FluxEmulator, stats: Recorder) -> None:
    told, _ = run(generate(model="flux-3-image"))
    assert told["cost"] == 6
    assert ("flux.cost", 6, stats.sent[0][2]) in stats.sent


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"prompt": "nsfw"}, "FluxModeratedError"),
        ({"prompt": "nsfw", "on_moderated": "skip"}, "FluxModeratedError"),
        ({"width": 3}, "FluxBadRequestError"),
    ],
)
def test_what_failed_is_counted_by_reason(
    flux: FluxEmulator, stats: Recorder, arguments: dict[str, Any], reason: str
) -> None:
    with pytest.raises((FluxError, AirflowSkipException)):
        run(generate(**arguments))
    name, _, tags = stats.sent[-1]
    assert (name, tags["reason"], tags["model"]) == ("flux.failed", reason, "flux-pro-1.1")
