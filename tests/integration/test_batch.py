"""FluxGenerateBatchOperator: many requests in one task, against the emulator; also killed with SIGKILL."""

from __future__ import annotations

import hashlib
import json
import math
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowTaskTimeout
from airflow.sdk import Asset, AssetAlias
from airflow.sdk.execution_time.context import OutletEventAccessors
from airflow.sdk.execution_time.timeout import timeout

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux import metrics
from airflow_provider_flux.batch.concurrency import SUBMITS
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from tests.conftest import both_gateways
from tests.integration.running import context
from tests.integration.test_metrics import Recorder
from tests.servers.process import wait_for
from tests.servers.seaweed import SeaweedFS

SMALL = {"width": 256, "height": 256}


def batch(folder: Path | str, requests: Any, **arguments: Any) -> FluxGenerateBatchOperator:
    uri = f"file://{folder}" if isinstance(folder, Path) else folder
    given = {"model": "flux-dev", "parameters": SMALL, **arguments}
    return FluxGenerateBatchOperator(task_id="generate", requests=requests, output_uri=uri, **given)


def run(folder: Path | str, requests: Any, run_id: str = "run-1", **arguments: Any) -> dict[str, Any]:
    return batch(folder, requests, **arguments).execute(context(run_id=run_id))


def rows(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def images(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix == ".jpeg"]


@both_gateways
def test_prompts_become_images_a_manifest_and_a_small_result(flux: FluxEmulator, tmp_path: Path) -> None:
    requests = [
        "a pear",
        {"prompt": "a fig", "seed": 7, "file_name": "fig"},
        {
            "model": "flux-2-pro",
            "prompt": "a quince",
            "parameters": {"output_format": "png"},
            "file_name": "q.png",
        },
    ]
    result = run(tmp_path, requests)
    (own,) = tmp_path.glob("manifest-run-1-*.jsonl")
    assert own.read_bytes() == (tmp_path / "manifest.jsonl").read_bytes()
    assert result == {
        "manifest": f"file://{own}",
        "manifest_sha256": hashlib.sha256((tmp_path / "manifest.jsonl").read_bytes()).hexdigest(),
        "counts": {
            "requested": 3,
            "stored": 3,
            "reused": 0,
            "moderated": 0,
            "failed": 0,
            "not_submitted": 0,
        },
        "cost": 2.5 + 2.5 + 3,
        "cost_usd": 0.08,
        "task_instance": {"dag_id": "dag", "task_id": "generate", "run_id": "run-1", "map_index": -1},
    }
    manifest = rows(tmp_path)
    assert [row["index"] for row in manifest] == [0, 1, 2]
    assert [row["prompt"] for row in manifest] == ["a pear", "a fig", "a quince"]
    assert all(row["submitted_at"].endswith("+00:00") for row in manifest)
    assert [row["model"] for row in manifest] == ["flux-dev", "flux-dev", "flux-2-pro"]
    assert [row["uri"].rpartition("/")[2] for row in manifest][1:] == ["fig.jpeg", "q.png"]
    assert (manifest[1]["seed"], manifest[2]["format"]) == (7, "png")
    for row in manifest:
        assert (tmp_path / row["uri"].rpartition("/")[2]).stat().st_size == row["bytes"]
        receipt = json.loads((tmp_path / f"{row['uri'].rpartition('/')[2]}.json").read_text())
        assert (receipt["state"], receipt["job"]["id"]) == ("stored", row["id"])
    assert "sig=" not in json.dumps(manifest)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("Dr. Smith", "Dr. Smith.jpeg"),
        ("sku-12.5", "sku-12.5.jpeg"),
        ("final.v2.JPG", "final.v2.JPG"),
        (".jpeg", ".jpeg.jpeg"),
        ("x" * 245, "x" * 245 + ".jpeg"),
        ("50% #1? a&b;*", "50% #1? a&b;*.jpeg"),
    ],
)
def test_file_name_gets_the_extension_of_its_format_unless_it_has_one(
    flux_connection: FluxEmulator, tmp_path: Path, name: str, file: str
) -> None:
    run(tmp_path, [{"prompt": "a pear", "file_name": name}])
    assert {path.name for path in tmp_path.iterdir()} >= {file, f"{file}.json"}


def test_file_name_of_another_format_is_warned_about(
    flux_connection: FluxEmulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, [{"prompt": "a pear", "file_name": "x.png"}, {"prompt": "a fig", "file_name": "y.jpg"}])
    assert [line for line in caplog.messages if "output_format" in line] == [
        "1 request has a file_name whose extension does not match the output_format: 'x.png' (request 0) will be jpeg."
    ]


def test_s3_names_are_case_sensitive_and_limited_by_the_whole_key(flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    folder = f"s3://{s3.bucket}/{'f' * 200}/{'g' * 200}/"
    named = [{"prompt": "a pear", "file_name": name} for name in ("X", "x")]
    assert run(folder, named)["counts"]["stored"] == 2
    submits = flux_connection.stats()["submit_requests"]
    with pytest.raises(AirflowFailException, match=r"1 problem: request 2: .*longer than the 1024 bytes"):
        run(folder, [*named, {"prompt": "a pear", "file_name": "h" * 620}])
    assert flux_connection.stats()["submit_requests"] == submits


def test_a_prompt_that_is_json_is_sent_as_text(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    scene = {"scene": "a fig", "colors": ["#ff0000"], "prompt": "é"}
    result = run(tmp_path, [json.dumps(scene), str(scene), {"prompt": scene}, {"prompt": ["a", "b"]}], parameters=None)
    sent = {job["prompt"] for job in flux_connection.stats()["jobs"]}
    as_json = json.dumps(scene, ensure_ascii=False)
    assert result["counts"]["stored"] == 4
    assert sent == {json.dumps(scene), str(scene), as_json, '["a", "b"]'}


def test_a_second_run_in_s3_submits_nothing(flux: FluxEmulator, s3: SeaweedFS) -> None:
    folder = f"s3://{s3.bucket}/batch/"
    first = run(folder, ["a pear", "a pear", "a fig"])
    again = run(folder, ["a pear", "a pear", "a fig"])
    assert flux.stats()["submits"] == 3
    assert (again["counts"]["reused"], again["cost"]) == (3, first["cost"])
    listed = {item["Key"] for item in s3.client().list_objects_v2(Bucket=s3.bucket)["Contents"]}
    assert len([key for key in listed if key.endswith(".jpeg")]) == 3
    assert "batch/manifest.jsonl" in listed
    next_day = run(folder, ["a pear", "a pear", "a fig"], run_id="run-2", reuse="always")
    assert (next_day["counts"]["reused"], next_day["cost"]) == (3, 0)


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ("a bare string", "must be a list of prompts or dicts, not str"),
        ([], "empty list"),
        ({"prompt": "one dict"}, "not dict"),
        (None, "not NoneType"),
        ([{"prompt": "a", "file_name": "x"}, {"prompt": "b", "file_name": "x.jpeg"}], "2 requests have the file name"),
        (["a", "", {"prompt": "b", "width": 3}, 4.5, ["c"]], "3 problems: request 1: .*request 2: .*width.*request 4"),
        (b"abc", "not bytes"),
        ({"a pear", "a fig"}, "not set"),
        ([None, "None", " null "], "3 problems: .*it is empty"),
        (
            [{"prompt": "None"}, {"prompt": "a", "image_prompt": None}],
            "2 problems: .*prompt is empty.*image_prompt is empty",
        ),
        ([{"prompt": None, "image_prompt": None}], "prompt is empty .*; image_prompt is empty"),
        ([{"prompt": math.nan}, "undefined"], "2 problems: .*prompt is empty .*it is empty"),
        ([math.nan, -math.inf, True, b"a"], "4 problems: .*the number nan.*the number -inf.*not bool.*not bytes"),
        ("[NaN, null]", "2 problems: .*the number nan.*it is empty"),
        ([{"prompt": "a", "parameters": "seed=1"}], "its parameters must be a dict"),
        ([{"prompt": "a", "file_name": "../x.png"}], "is not a valid name for an image"),
        ([{"prompt": "a", "file_name": "..\\x.png"}], "is not a valid name for an image"),
        ([{"prompt": "a", "file_name": "x.png.JSON"}], "is not a valid name for an image"),
        ([{"prompt": "a", "file_name": "manifest-2.jsonl"}], "is not a valid name for an image"),
        (
            [{"prompt": "a", "file_name": "x" * 300}, {"prompt": "b", "width": 3}],
            "2 problems: .*longer than the 255 bytes.*width",
        ),
        ([{"prompt": "a", "file_name": "\u00e9" * 123}], "longer than the 255 bytes"),
        (
            [{"prompt": "a", "file_name": "X.png"}, {"prompt": "b", "file_name": "x.PNG"}],
            "2 requests have the file name",
        ),
        (
            [{"prompt": "a", "file_name": "\u00e9"}, {"prompt": "b", "file_name": "e\u0301"}],
            "2 requests have the file name",
        ),
        ([{"prompt": "a", "file_name": "\ud83d.png"}], "is not a valid name for an image"),
        ([{"prompt": "a", "seed": 1, "parameters": {"seed": 2}}], "set both in the request and in its parameters"),
        ([{"prompt": "a", "image_prompt": 5}], "image_prompt must be one image, not a int"),
        ([{"prompt": "a", "image_prompt": "a pear"}], "image_prompt is neither a URL"),
        ([{"prompt": "a", "image_prompt": ["https://host/a.png"]}], "image_prompt must be one image, not a list"),
        ([{"prompt": "a", "image_prompt": "aGVsbG8="}], "image_prompt is not a PNG, JPEG or WebP image"),
    ],
)
def test_invalid_requests_fail_before_submit(
    flux_connection: FluxEmulator, tmp_path: Path, requests: Any, message: str
) -> None:
    with pytest.raises(AirflowFailException, match=message):
        run(tmp_path, requests, model="flux-pro-1.1", parameters=None)
    assert flux_connection.stats()["submit_requests"] == 0


@pytest.mark.parametrize(
    "arguments",
    [{"max_active": 0}, {"on_moderated": "maybe"}, {"max_failures": -1}, {"max_cost": "much"}, {"output_uri": ""}],
)
def test_invalid_arguments_fail_before_submit(
    flux_connection: FluxEmulator, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    operator = batch(tmp_path, ["a pear"], **{name: arguments[name] for name in arguments if name != "output_uri"})
    operator.output_uri = arguments.get("output_uri", operator.output_uri)
    with pytest.raises(AirflowFailException, match=next(iter(arguments))):
        operator.execute(context())
    assert flux_connection.stats()["submit_requests"] == 0


class Lazy(Sequence[str]):
    """A sequence that is not a list, as XComs of mapped tasks are."""

    def __getitem__(self, index: Any) -> Any:
        return ["a pear", "a fig"][index]

    def __len__(self) -> int:
        return 2


SEEDED = {"prompt": "a fig", "seed": None, "model": "None", "parameters": {"prompt_upsampling": True}}


@pytest.mark.parametrize(
    "requests",
    [
        str(["a pear", {"prompt": "a fig"}]),
        json.dumps(["a pear", SEEDED]),
        str(["a pear", {**SEEDED, "parameters": str(SEEDED["parameters"])}]),
        ("a pear", "a fig"),
        Lazy(),
        (prompt for prompt in ["a pear", "a fig"]),
    ],
)
def test_requests_from_templates_and_xcoms_are_read(
    flux_connection: FluxEmulator, tmp_path: Path, requests: Any
) -> None:
    assert run(tmp_path, requests)["counts"]["stored"] == 2
    assert {job["prompt"] for job in flux_connection.stats()["jobs"]} == {"a pear", "a fig"}


def test_an_image_is_reused_at_another_position_in_the_list(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    run(tmp_path, ["a pear", "a fig", "a pear"])
    result = run(tmp_path, ["a quince", "a pear", "a pear", "a fig"], run_id="run-2", reuse="always")
    assert (result["counts"]["reused"], result["cost"]) == (3, 2.5)
    assert len(images(tmp_path)) == flux_connection.stats()["submits"] == 4


def test_others_continue_after_a_failure_and_a_retry_submits_only_what_is_missing(
    flux: FluxEmulator, tmp_path: Path
) -> None:
    flux.fault(on="poll", status="Error", match="unlucky")
    requests = ["a pear", "an unlucky fig", "a quince"]
    with pytest.raises(
        errors.FluxBatchError, match=r"1 of 3 images are missing .*A retry submits only what is missing"
    ):
        run(tmp_path, requests)
    assert [row["state"] for row in rows(tmp_path)] == ["stored", "failed", "stored"]
    assert "FluxJobFailedError" in rows(tmp_path)[1]["error"]
    result = run(tmp_path, requests)
    assert (result["counts"]["stored"], result["counts"]["reused"]) == (3, 2)
    assert flux.stats()["submits"] == 4


PEAR: dict[str, Any] = {"prompt": "a pear", "file_name": "hero.png"}


def test_seeds_and_variants_are_images_that_a_retry_finds_again(flux: FluxEmulator, tmp_path: Path) -> None:
    requests = [
        {**PEAR, "seeds": "[7, 2]"},
        "a fig",
        {"prompt": "a fig", "variants": 2, "file_name": "fig"},
        {"prompt": "a fig", "variants": "3", "seed": "5"},
    ]
    result = run(tmp_path, requests)
    again = run(tmp_path, requests)
    manifest = rows(tmp_path)
    assert (result["counts"]["stored"], again["counts"]["reused"], flux.stats()["submits"]) == (8, 8, 8)
    assert [(row["index"], row["request"]) for row in manifest] == list(enumerate([0, 0, 1, 2, 2, 3, 3, 3]))
    names = [row["file_name"] for row in manifest]
    assert names[:2] == ["hero-7.png", "hero-2.png"]
    assert names[3:5] == [f"fig-{row['seed']}.jpeg" for row in manifest[3:5]]
    assert [row["seed"] for row in (*manifest[:2], *manifest[5:])] == [7, 2, 5, 6, 7]
    assert len({row["seed"] for row in manifest[2:5]}) == 3
    fewer = run(tmp_path, [{"prompt": "a fig", "variants": 1, "file_name": "fig"}])
    assert fewer["counts"]["reused"] == 1


def test_shared_variants_yield_to_what_a_request_asks_for(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    requests = ["a pear", {**PEAR, "seeds": [3]}, {**PEAR, "variants": 1}, {"prompt": "a fig", "seed": 9}]
    run(tmp_path, requests, parameters={**SMALL, "variants": 2})
    assert [row["request"] for row in rows(tmp_path)] == [0, 0, 1, 2, 3, 3]
    assert [row["seed"] for row in rows(tmp_path)][4:] == [9, 10]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": [1], "variants": 2}, "request 0: seeds and variants exclude each other"),
        ({"seeds": [1], "seed": 2}, "seed and seeds exclude each other"),
        ({"seeds": [1, "2", 2, 1]}, r"seeds contains 1, 2 more than once"),
        ({"seeds": []}, r"seeds is \[\]; it must be a list of whole numbers"),
        ({"seeds": 3}, "seeds is 3; it must be a list of whole numbers"),
        ({"seeds": [1, "x"]}, "must be a list of whole numbers"),
        ({"seeds": [True]}, "must be a list of whole numbers"),
        ({"seeds": list(range(101))}, "asks for 101 images of one request; 100 is the maximum"),
        ({"variants": 0}, "variants is 0; it must be a whole number, 1 or more"),
        ({"variants": "four"}, "variants is 'four'"),
        ({"variants": 1e9}, "100 is the maximum"),
        ({"variants": 2, "model": "flux-3-image", "parameters": {}}, "flux-3-image does not take; .* repeat the"),
    ],
)
def test_invalid_variants_fail_before_anything_is_billed(
    flux_connection: FluxEmulator, tmp_path: Path, fields: dict[str, Any], message: str
) -> None:
    with pytest.raises(AirflowFailException, match=f"1 problem: .*{message}"):
        run(tmp_path, [{"prompt": "a pear", **fields}], parameters=None)
    assert flux_connection.stats()["submit_requests"] == 0


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_moderated_requests_are_counted_separately(flux: FluxEmulator, tmp_path: Path, policy: str) -> None:
    requests = ["a pear", "nsfw"]
    if policy == "skip":
        result = run(tmp_path, requests, on_moderated=policy)
        assert (result["counts"]["moderated"], result["counts"]["failed"]) == (1, 0)
    else:
        with pytest.raises(errors.FluxBatchError, match="1 moderated") as caught:
            run(tmp_path, requests, on_moderated=policy)
        assert isinstance(caught.value, AirflowFailException), "a retry cannot succeed"
    assert rows(tmp_path)[1]["state"] == "moderated"


UNPRICED = {"model": "flux-3-image", "parameters": {"resolution": "1.5k"}}
# The others wait for the price of the first one.
STOP_AT_ONCE = {"max_failures": 0, "max_cost": 100, "max_active": 8, **UNPRICED}


@pytest.mark.parametrize("arguments", [{"max_failures": 0}, {"max_failures": 2}, STOP_AT_ONCE])
def test_submitting_stops_after_max_failures(
    flux_connection: FluxEmulator, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    flux_connection.fault(on="submit", http=422, json={"detail": "no"}, times=None)
    with pytest.raises(errors.FluxBatchError):
        run(tmp_path, [f"pear {number}" for number in range(8)], **{"max_active": 1, **arguments})
    submits = 3 if arguments.get("max_failures") else 1
    assert flux_connection.stats()["submit_requests"] == submits
    assert Counter(row["state"] for row in rows(tmp_path)) == {"failed": submits, "not_submitted": 8 - submits}


def test_a_failed_download_is_retried(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="download", http=500, times=4)  # more often than one download is attempted
    assert run(tmp_path, ["a pear"])["counts"]["stored"] == 1
    assert flux.stats()["submits"] == 1


@pytest.mark.parametrize("priced", [{"model": "flux-dev", "parameters": None}, UNPRICED])
def test_max_cost_is_not_exceeded(flux: FluxEmulator, tmp_path: Path, priced: dict[str, Any]) -> None:
    price = run(tmp_path / "one", ["a pear"], **priced)["cost"]
    flux.reset()
    requests = [f"pear {number}" for number in range(6)]
    arguments: Any = {**priced, "max_cost": 3.4 * price}
    for _ in range(2):
        with pytest.raises(errors.FluxBatchError, match=r"3 not submitted\): max_cost is reached\.") as caught:
            run(tmp_path, requests, **arguments)
        assert isinstance(caught.value, AirflowFailException)
        assert flux.stats()["submits"] == 3
    assert run(tmp_path, requests, **{**arguments, "max_cost": 6 * price})["cost"] == pytest.approx(6 * price)


LARGE = {"model": "flux-2-pro", "parameters": {"width": 2048, "height": 2048}}
MODELS = ("flux-dev", "flux-2-pro", "flux-pro-1.1", "flux-kontext-pro", "flux-2-klein-4b", "flux-3-image")


@pytest.mark.parametrize(
    ("requests", "max_cost", "billed"),
    [
        ([{"model": model, "prompt": "a pear"} for model in MODELS], 1, 0),
        (["a pear", *({**LARGE, "prompt": f"fig {number}"} for number in range(7))], 50, 2.5 + 6 * 7.5),
        # Cheaper requests continue where expensive ones may not.
        ([*({**LARGE, "prompt": f"fig {number}"} for number in range(3)), "a pear", "a quince"], 20, 2 * 7.5 + 2 * 2.5),
    ],
)
def test_max_cost_uses_a_price_per_model_and_size(
    flux_connection: FluxEmulator, tmp_path: Path, requests: Any, max_cost: float, billed: float
) -> None:
    with pytest.raises(errors.FluxBatchError, match="max_cost is reached"):
        run(tmp_path, requests, parameters=None, max_cost=max_cost)
    manifest = rows(tmp_path)
    assert sum(row["cost"] or 0 for row in manifest) == billed
    assert {row["error"] for row in manifest if row["state"] == "not_submitted"} == {"max_cost is reached"}


@pytest.mark.parametrize(("model", "prompt", "price"), [("flux-3-image", "fig", 4.8), ("flux-dev", "gore", 2.5)])
def test_the_cost_of_a_resumed_job_is_counted_when_it_ends(
    flux: FluxEmulator, tmp_path: Path, model: str, prompt: str, price: float
) -> None:
    flux.settings(duration=4)
    arguments: Any = {"model": model, "parameters": None, "on_moderated": "skip"}
    with pytest.raises(AirflowTaskTimeout), timeout(2):
        run(tmp_path, [f"{prompt} 1", f"{prompt} 2"], **arguments)
    assert run(tmp_path, [f"{prompt} 1", f"{prompt} 2"], **arguments)["cost"] == 2 * price
    assert flux.stats()["submits"] == 2


def test_the_cost_of_a_lost_image_is_reported(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="download", http=404, times=None)
    for _ in range(2):
        with pytest.raises(errors.FluxBatchError, match=r"billed 2\.5 credits"):
            run(tmp_path, ["a pear"])
        (row,) = rows(tmp_path)
        assert (row["state"], row["cost"]) == ("failed", 2.5)
    assert flux.stats()["submits"] == 1


@pytest.mark.parametrize(
    ("fault", "advice"),
    [
        ({"http": 402}, "Top up the account"),
        ({"http": 401}, "Check the API key"),
        ({"html": "<html>Welcome</html>"}, "Check the Airflow connection"),
        ({"redirect": "https://example.org/"}, "Check the Airflow connection"),
    ],
)
def test_an_account_error_stops_submitting(
    flux_connection: FluxEmulator, tmp_path: Path, fault: dict[str, Any], advice: str
) -> None:
    flux_connection.fault(on="submit", times=None, **fault)
    with pytest.raises(errors.FluxBatchError, match=advice) as caught:
        run(tmp_path, [f"pear {number}" for number in range(60)])
    assert isinstance(caught.value, AirflowFailException)
    assert flux_connection.stats()["submit_requests"] <= SUBMITS
    assert Counter(row["state"] for row in rows(tmp_path))["not_submitted"] >= 60 - SUBMITS


def test_the_error_states_the_cost_if_the_manifest_cannot_be_written(
    flux_connection: FluxEmulator, tmp_path: Path
) -> None:
    flux_connection.settings(duration=2)

    def block() -> None:
        wait_for(lambda: flux_connection.stats()["submits"] == 2, timeout=60, what="the submits")
        (tmp_path / "manifest.jsonl").mkdir()

    with ThreadPoolExecutor() as threads:
        blocking = threads.submit(block)
        with pytest.raises(
            errors.FluxBatchError,
            match=r"1 moderated.* billed 2\.5 credits \(\$0\.025\), .* could not be written",
        ):
            run(tmp_path, ["a pear", "nsfw"])
        blocking.result()
    (tmp_path / "manifest.jsonl").rmdir()
    assert run(tmp_path, ["a pear", "nsfw"], on_moderated="skip")["counts"]["reused"] == 1


def test_an_invalid_batch_is_counted_and_an_alias_gets_no_event_without_images(
    flux_connection: FluxEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(metrics, "_stats", lambda: recorder)
    with pytest.raises(AirflowFailException):
        run(tmp_path, [])
    assert [(name, tags["reason"]) for name, _, tags in recorder.sent] == [("flux.failed", "FluxBadRequestError")]
    alias, asset = AssetAlias("pears"), Asset(name="pears", uri="flux://pears")
    for requests, events_of_alias in ((["nsfw"], 0), (["a pear"], 1)):
        events = OutletEventAccessors()
        operator = batch(tmp_path, requests, on_moderated="skip", outlets=[alias, asset])
        own = operator.execute(context() | {"outlet_events": events})["manifest"]
        assert len(events[alias].asset_alias_events) == events_of_alias
        extra = events[asset].extra
        assert (extra["uri"], extra["manifest"]) == (f"file://{tmp_path}/manifest.jsonl", own)


def test_the_cost_of_earlier_attempts_counts(flux: FluxEmulator, tmp_path: Path) -> None:
    requests = [f"{when} pear {number}" for when in ("early", "late") for number in range(3)]
    flux.fault(on="submit", http=422, json={"detail": "no"}, match="early", times=3)
    with pytest.raises(errors.FluxBatchError, match="3 failed"):
        run(tmp_path, requests)
    with pytest.raises(errors.FluxBatchError, match="max_cost is reached"):
        run(tmp_path, requests, max_cost=4 * 2.5)
    assert flux.stats()["submits"] == 4
    assert Counter(row["state"] for row in rows(tmp_path)) == {"stored": 4, "not_submitted": 2}


def test_a_retry_that_stops_early_still_reports_stored_images(flux: FluxEmulator, tmp_path: Path) -> None:
    requests = ["a bad pear", "a fig", "a quince"]
    flux.fault(on="submit", http=422, json={"detail": "no"}, match="bad", times=None)
    for max_failures in (None, 0):
        with pytest.raises(errors.FluxBatchError, match="1 of 3 images are missing"):
            run(tmp_path, requests, max_failures=max_failures)
        assert [row["state"] for row in rows(tmp_path)] == ["failed", "stored", "stored"]
    assert flux.stats()["submits"] == 2


def test_an_execution_timeout_logs_the_running_jobs(
    flux: FluxEmulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flux.settings(duration=4)
    operator = batch(tmp_path, ["a pear", "a fig", "a quince"], max_active=2)
    with pytest.raises(AirflowTaskTimeout), timeout(2):
        operator.execute(context())
    operator.on_kill()
    output = capsys.readouterr().out
    assert "are still running" in output
    assert all(row["id"] in output for row in rows(tmp_path) if row["state"] == "failed")
    assert Counter(row["state"] for row in rows(tmp_path)) == {"failed": 2, "not_submitted": 1}
    assert operator.execute(context())["counts"]["stored"] == 3
    assert flux.stats()["submits"] == 3


def test_an_account_with_less_capacity_than_max_active_is_not_flooded(
    flux: FluxEmulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # The batch takes longer than the timeout, but each image is ready within it.
    flux.settings(max_active=2, duration=1)
    result = run(tmp_path, [f"pear {number}" for number in range(14)], max_active=12, timeout=6)
    stats = flux.stats()
    assert (result["counts"]["stored"], stats["submits"]) == (14, 14)
    assert stats["submit_requests"] < 28, "most submits wait until a job ends"
    assert capsys.readouterr().out.count("refused") <= 11, "one line per tenth, not one per refusal"


def test_an_account_that_stays_full_stops_submitting(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    flux_connection.settings(max_active=0)
    with pytest.raises(errors.FluxBatchError, match="FluxRateLimitError") as caught:
        run(tmp_path, [f"pear {number}" for number in range(60)], timeout=1)
    assert not isinstance(caught.value, AirflowFailException), "a retry finds capacity"
    assert flux_connection.stats()["submit_requests"] < 20


def test_an_input_image_that_is_missing_fails_its_request_alone(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    requests = [{"prompt": "b", "input_image": f"file://{tmp_path}/no.png"}, "a pear"]
    with pytest.raises(errors.FluxBatchError, match=r"no\.png"):
        run(tmp_path, requests, model="flux-2-pro", parameters=None)
    assert [row["state"] for row in rows(tmp_path)] == ["failed", "stored"]


SCRIPT = """
import sys
from tests.integration.test_batch import batch
from tests.integration.running import context
from pathlib import Path

print(batch(Path(sys.argv[1]), [f"pear {n}" for n in range(100)]).execute(context()))
"""


def test_a_batch_that_is_killed_twice_pays_for_each_image_once(
    flux_connection: FluxEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The timeout bounds a submit, and so how long the claim of a killed worker lasts.
    monkeypatch.setenv("AIRFLOW_CONN_FLUX_DEFAULT", json.dumps(flux_connection.connection(timeout=2)))
    flux_connection.settings(duration=(0.5, 1.5))
    folder, log = tmp_path / "images", tmp_path / "log"

    def start() -> subprocess.Popen[bytes]:
        with log.open("ab") as file:
            return subprocess.Popen(
                [sys.executable, "-c", SCRIPT, str(folder)], stdout=file, stderr=file, env={**os.environ}
            )

    def until(stored: int) -> None:
        wait_for(lambda: folder.exists() and len(images(folder)) >= stored, timeout=120, what=f"{stored} images")

    for stored in (20, 55):
        process = start()
        until(stored)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start().wait(300) == 0, log.read_text()
    orphans = log.read_text().count("Orphaned submit")
    stats = flux_connection.stats()
    assert len(images(folder)) == 100
    assert stats["submits"] <= 100 + orphans
    assert len({row["id"] for row in rows(folder)}) == 100
    for row in rows(folder):
        assert hashlib.sha256((folder / row["file_name"]).read_bytes()).hexdigest() == row["sha256"]


def test_a_run_keeps_its_manifest_after_the_next_run(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    first = run(tmp_path, ["a pear"])
    second = run(tmp_path, ["a fig"], run_id="run-2")
    for result, prompt in ((first, "a pear"), (second, "a fig")):
        data = Path(result["manifest"].removeprefix("file://")).read_bytes()
        assert hashlib.sha256(data).hexdigest() == result["manifest_sha256"]
        assert json.loads(data)["prompt"] == prompt
    assert [row["prompt"] for row in rows(tmp_path)] == ["a fig"], "manifest.jsonl is the newest"


def test_a_failed_batch_pushes_its_result(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    flux_connection.fault(on="submit", http=422, json={"detail": "no"}, match="bad", times=None)
    task_context = context()
    with pytest.raises(errors.FluxBatchError):
        batch(tmp_path, ["a pear", "a bad fig"]).execute(task_context)
    result = task_context["ti"].pushed["return_value"]
    assert (result["counts"]["stored"], result["counts"]["failed"], result["cost"]) == (1, 1, 2.5)
    data = Path(result["manifest"].removeprefix("file://")).read_bytes()
    assert hashlib.sha256(data).hexdigest() == result["manifest_sha256"]


def test_on_max_cost_stop_lets_the_task_succeed(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    prompts = [f"pear {number}" for number in range(5)]
    result = run(tmp_path, prompts, max_cost=2 * 2.5, on_max_cost="stop")
    assert (result["counts"]["stored"], result["counts"]["not_submitted"], result["cost"]) == (2, 3, 5.0)
    flux_connection.fault(on="submit", http=422, json={"detail": "no"}, match="bad", times=None)
    with pytest.raises(errors.FluxBatchError, match=r"1 of 6 images are missing"):
        run(tmp_path, ["a bad fig", *prompts], run_id="run-2", max_cost=2 * 2.5, on_max_cost="stop")


@pytest.mark.parametrize("settled", [1.0, 4.0])
def test_the_settled_cost_counts_everywhere(flux_connection: FluxEmulator, tmp_path: Path, settled: float) -> None:
    """The API estimates 2.5 credits for each job and bills another amount."""
    flux_connection.settings(duration=0.2, settled_factor=settled / 2.5)
    result = run(tmp_path, [f"pear {number}" for number in range(6)], max_cost=9, max_active=1, on_max_cost="stop")
    stored = int(9 // settled) if settled > 2.5 else 6
    assert (result["counts"]["stored"], result["cost"]) == (stored, stored * settled)
    stored_rows = [row for row in rows(tmp_path) if row["state"] == "stored"]
    assert {row["cost"] for row in stored_rows} == {settled}
    receipts = [json.loads((tmp_path / f"{row['file_name']}.json").read_text()) for row in stored_rows]
    assert {(receipt["job"]["cost"], receipt["image"]["cost"]) for receipt in receipts} == {(settled, settled)}
    assert 10_000 - flux_connection.stats()["credits"] == pytest.approx(result["cost"])
