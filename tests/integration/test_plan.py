"""What a batch would do and cost, against the emulator: estimates of the hook, and plan_only."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from PIL import Image

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.hooks.flux import FluxHook
from tests.conftest import both_gateways
from tests.integration.test_batch import run

SQUARE = {"width": 1024, "height": 1024}


def reference(width: int, height: int) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


@both_gateways
@pytest.mark.parametrize(
    ("model", "parameters"),
    [
        ("flux-dev", {}),
        ("flux-2-pro", {"width": "2048", "height": 1024}),
        ("flux-2-max", {**SQUARE, "input_image": reference(1024, 512)}),
        ("flux-3-image", {"resolution": "2k"}),
    ],
)
def test_estimate_is_what_the_api_charges(flux: FluxEmulator, model: str, parameters: dict[str, Any]) -> None:
    hook, request = FluxHook(), {"prompt": "a pear", **parameters}
    estimated = hook.estimate(model, request)
    assert estimated is not None
    assert flux.stats()["submits"] == 0
    result = hook.wait(hook.submit(model, request), timeout=30)
    cost = result.job.cost if result.cost is None else result.cost
    assert (estimated.credits, estimated.usd) == pytest.approx((cost, estimated.credits / 100))


def test_estimate_of_an_invalid_request_is_an_error_and_an_unknown_price_is_none(flux: FluxEmulator) -> None:
    hook = FluxHook()
    assert hook.estimate("flux-9", {"prompt": "a pear"}) is None
    assert hook.estimate("flux-2-pro", {"prompt": "a pear", **SQUARE, "input_image": "https://host/a.png"}) is None
    path = {"prompt": "a pear", **SQUARE, "input_image_blob_path": "x"}
    assert hook.estimate("flux-2-flex", path) is None
    with pytest.raises(errors.FluxBadRequestError, match="variants asks for several images, which FluxGenerateBatch"):
        hook.estimate("flux-dev", {"prompt": "a pear", "variants": 4})
    with pytest.raises(errors.FluxBadRequestError, match="steps"):
        hook.estimate("flux-dev", {"prompt": "a pear", "steps": 99})


def test_plan_counts_what_the_batch_then_does(flux: FluxEmulator, tmp_path: Path) -> None:
    old = [{"prompt": "a pear", "file_name": "pear"}, {"prompt": "a fig", "seeds": [1, 2]}]
    new: list[Any] = ["a quince", {"prompt": "a plum", "model": "flux-9", "parameters": {}}]
    run(tmp_path, old)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    plan = run(tmp_path, [*old, *new], "run-2", reuse="always", max_cost=2, plan_only="true")
    assert plan == {
        "counts": {"requested": 5, "new": 2, "reused": 3, "refused": 0},
        "refused": [],
        "estimated_cost": 2.5,
        "estimated_cost_usd": 0.025,
        "unknown_prices": 1,
        "exceeds_max_cost": True,
    }
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before
    assert flux.stats()["submits"] == 3
    done = run(tmp_path, [*old, new[0]], "run-2", reuse="always")
    assert (done["counts"]["reused"], done["cost"]) == (3, plan["estimated_cost"])


def test_plan_counts_what_the_run_has_paid_against_max_cost(flux: FluxEmulator, tmp_path: Path) -> None:
    arguments: Any = {"max_cost": 5, "on_max_cost": "stop"}
    assert run(tmp_path, ["a", "b", "c"], **arguments)["cost"] == 5
    plan = run(tmp_path, ["a", "b", "c"], plan_only=True, **arguments)
    assert (plan["counts"]["new"], plan["exceeds_max_cost"]) == (1, True)
    assert run(tmp_path, ["a", "b"], plan_only=True, **arguments)["exceeds_max_cost"] is False


def test_plan_lists_every_refusal_with_its_reason(flux: FluxEmulator, tmp_path: Path) -> None:
    (tmp_path / "taken.jpeg").write_bytes(b"another file")
    secret = "a secret plum"
    requests = [
        {"prompt": secret, "parameters": {"steps": 99}},
        {"prompt": "a pear", "file_name": "taken"},
        "a fig",
        {"prompt": "one", "file_name": "same"},
        {"prompt": "two", "file_name": "same.jpeg"},
        {"prompt": "three", "input_image": f"file://{tmp_path}/missing.png", "model": "flux-2-pro"},
    ]
    plan = run(tmp_path, requests, plan_only=True, replace=False)
    assert plan["counts"] == {"requested": 6, "new": 1, "reused": 0, "refused": 5}
    reasons = {refusal["request"]: refusal["reason"] for refusal in plan["refused"]}
    expected = {0: "steps", 1: "replace=False", 3: "same", 4: "same", 5: "does not exist"}
    assert reasons.keys() == expected.keys()
    assert all(part in reasons[request] for request, part in expected.items())
    assert secret not in json.dumps(plan)
    assert flux.stats()["submits"] == 0


def test_plan_fails_where_no_request_could_succeed(flux: FluxEmulator) -> None:
    with pytest.raises(AirflowFailException, match="Nothing was billed"):
        run("s3://no bucket/", ["a pear"], plan_only=True)


def test_a_doubtful_plan_only_pays_nothing(flux: FluxEmulator, tmp_path: Path) -> None:
    with pytest.raises(errors.FluxBadRequestError, match=r"plan_only is .*; it must be true or false"):
        run(tmp_path, ["a pear"], plan_only="perhaps")
    assert flux.stats()["submits"] == 0
