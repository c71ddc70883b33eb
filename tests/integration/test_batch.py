"""FluxGenerateBatchOperator: many requests in one task, against the emulator; killed for real in the middle."""

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
from airflow_provider_flux.batch.runner import SUBMITS
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


def manifest(folder: Path) -> list[dict[str, Any]]:
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
    told = run(tmp_path, requests)
    (own,) = tmp_path.glob("manifest-run-1-*.jsonl")
    assert own.read_bytes() == (tmp_path / "manifest.jsonl").read_bytes()
    assert told == {
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
    }
    lines = manifest(tmp_path)
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert [line["prompt"] for line in lines] == ["a pear", "a fig", "a quince"]
    assert all(line["submitted_at"].endswith("+00:00") for line in lines)
    assert [line["model"] for line in lines] == ["flux-dev", "flux-dev", "flux-2-pro"]
    assert [line["uri"].rpartition("/")[2] for line in lines][1:] == ["fig.jpeg", "q.png"]
    assert (lines[1]["seed"], lines[2]["format"]) == (7, "png")
    for line in lines:
        assert (tmp_path / line["uri"].rpartition("/")[2]).stat().st_size == line["bytes"]
        receipt = json.loads((tmp_path / f"{line['uri'].rpartition('/')[2]}.json").read_text())
        assert (receipt["state"], receipt["job"]["id"]) == ("stored", line["id"])
    assert "sig=" not in json.dumps(lines)


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
def test_only_an_image_format_is_an_ending(flux_connection: FluxEmulator, tmp_path: Path, name: str, file: str) -> None:
    run(tmp_path, [{"prompt": "a pear", "file_name": name}])
    assert {path.name for path in tmp_path.iterdir()} >= {file, f"{file}.json"}


def test_an_ending_of_another_format_is_told_before_the_submits(
    flux_connection: FluxEmulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(tmp_path, [{"prompt": "a pear", "file_name": "x.png"}, {"prompt": "a fig", "file_name": "y.jpg"}])
    assert [line for line in caplog.messages if "file_name" in line] == [
        "The file_name of 1 requests does not fit their output_format: 'x.png' (request 0) will be jpeg."
    ]


def test_s3_tells_cases_apart_and_counts_the_whole_key(flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    folder = f"s3://{s3.bucket}/{'f' * 200}/{'g' * 200}/"
    named = [{"prompt": "a pear", "file_name": name} for name in ("X", "x")]
    assert run(folder, named)["counts"]["stored"] == 2
    submits = flux_connection.stats()["submit_requests"]
    with pytest.raises(AirflowFailException, match=r"1 problems: request 2: .*longer than the 1024 bytes"):
        run(folder, [*named, {"prompt": "a pear", "file_name": "h" * 620}])
    assert flux_connection.stats()["submit_requests"] == submits


def test_a_prompt_that_is_json_is_a_prompt(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    scene = {"scene": "a fig", "colors": ["#ff0000"], "prompt": "é"}
    told = run(tmp_path, [json.dumps(scene), str(scene), {"prompt": scene}, {"prompt": ["a", "b"]}], parameters=None)
    sent = {job["prompt"] for job in flux_connection.stats()["jobs"]}
    as_json = json.dumps(scene, ensure_ascii=False)
    assert told["counts"]["stored"] == 4
    assert sent == {json.dumps(scene), str(scene), as_json, '["a", "b"]'}


def test_in_s3_and_run_again_it_buys_nothing(flux: FluxEmulator, s3: SeaweedFS) -> None:
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
    ("requests", "said"),
    [
        ("a bare string", "must be a list of prompts or dicts, not one str"),
        ([], "empty list"),
        ({"prompt": "one dict"}, "not one dict"),
        (None, "not one NoneType"),
        ([{"prompt": "a", "file_name": "x"}, {"prompt": "b", "file_name": "x.jpeg"}], "2 requests have the file name"),
        (["a", "", {"prompt": "b", "width": 3}, 4.5, ["c"]], "3 problems: request 1: .*request 2: .*width.*request 4"),
        (b"abc", "not one bytes"),
        ({"a pear", "a fig"}, "not one set"),
        ([None, "None", " null "], "3 problems: .*not nothing"),
        (
            [{"prompt": "None"}, {"prompt": "a", "image_prompt": None}],
            "2 problems: .*prompt is empty.*image_prompt is empty",
        ),
        ([{"prompt": None, "image_prompt": None}], "prompt is empty .*; image_prompt is empty"),
        ([{"prompt": math.nan}, "undefined"], "2 problems: .*prompt is empty .*not nothing"),
        ([math.nan, -math.inf, True, b"a"], "4 problems: .*the number nan.*the number -inf.*a bool.*a bytes"),
        ("[NaN, null]", "2 problems: .*the number nan.*not nothing"),
        ([{"prompt": "a", "parameters": "seed=1"}], "its parameters must be a dict"),
        ([{"prompt": "a", "file_name": "../x.png"}], "cannot name an image"),
        ([{"prompt": "a", "file_name": "..\\x.png"}], "cannot name an image"),
        ([{"prompt": "a", "file_name": "x.png.JSON"}], "cannot name an image"),
        ([{"prompt": "a", "file_name": "manifest-2.jsonl"}], "cannot name an image"),
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
        ([{"prompt": "a", "file_name": "\ud83d.png"}], "cannot name an image"),
        ([{"prompt": "a", "seed": 1, "parameters": {"seed": 2}}], "given twice"),
        ([{"prompt": "a", "image_prompt": 5}], "image_prompt must be one image, not a int"),
        ([{"prompt": "a", "image_prompt": "a pear"}], "image_prompt is neither a URL"),
        ([{"prompt": "a", "image_prompt": ["https://host/a.png"]}], "image_prompt must be one image, not a list"),
        ([{"prompt": "a", "image_prompt": "aGVsbG8="}], "image_prompt is not a PNG, JPEG or WebP image"),
    ],
)
def test_wrong_requests_are_told_before_money_is_spent(
    flux_connection: FluxEmulator, tmp_path: Path, requests: Any, said: str
) -> None:
    with pytest.raises(AirflowFailException, match=said):
        run(tmp_path, requests, model="flux-pro-1.1", parameters=None)
    assert flux_connection.stats()["submit_requests"] == 0


@pytest.mark.parametrize(
    "arguments",
    [{"max_active": 0}, {"on_moderated": "perhaps"}, {"max_failures": -1}, {"max_cost": "much"}, {"output_uri": ""}],
)
def test_wrong_arguments(flux_connection: FluxEmulator, tmp_path: Path, arguments: dict[str, Any]) -> None:
    operator = batch(tmp_path, ["a pear"], **{name: arguments[name] for name in arguments if name != "output_uri"})
    operator.output_uri = arguments.get("output_uri", operator.output_uri)
    with pytest.raises(AirflowFailException, match=next(iter(arguments))):
        operator.execute(context())
    assert flux_connection.stats()["submit_requests"] == 0


class Lazy(Sequence[str]):
    """A sequence that is no list, as XComs of mapped tasks are."""

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
def test_requests_as_templates_and_xcoms_give_them(
    flux_connection: FluxEmulator, tmp_path: Path, requests: Any
) -> None:
    assert run(tmp_path, requests)["counts"]["stored"] == 2
    assert {job["prompt"] for job in flux_connection.stats()["jobs"]} == {"a pear", "a fig"}


def test_an_image_is_known_by_its_recipe_wherever_it_stands(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    run(tmp_path, ["a pear", "a fig", "a pear"])
    told = run(tmp_path, ["a quince", "a pear", "a pear", "a fig"], run_id="run-2", reuse="always")
    assert (told["counts"]["reused"], told["cost"]) == (3, 2.5)
    assert len(images(tmp_path)) == flux_connection.stats()["submits"] == 4


def test_the_rest_goes_on_and_a_retry_buys_only_what_is_missing(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="poll", status="Error", match="unlucky")
    requests = ["a pear", "an unlucky fig", "a quince"]
    with pytest.raises(errors.FluxBatchError, match=r"1 of 3 images are missing .*retry .* buys only what is missing"):
        run(tmp_path, requests)
    assert [line["state"] for line in manifest(tmp_path)] == ["stored", "failed", "stored"]
    assert "FluxJobFailedError" in manifest(tmp_path)[1]["error"]
    told = run(tmp_path, requests)
    assert (told["counts"]["stored"], told["counts"]["reused"]) == (3, 2)
    assert flux.stats()["submits"] == 4


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_moderated_requests_are_counted_apart(flux: FluxEmulator, tmp_path: Path, policy: str) -> None:
    requests = ["a pear", "nsfw"]
    if policy == "skip":
        told = run(tmp_path, requests, on_moderated=policy)
        assert (told["counts"]["moderated"], told["counts"]["failed"]) == (1, 0)
    else:
        with pytest.raises(errors.FluxBatchError, match="1 moderated") as caught:
            run(tmp_path, requests, on_moderated=policy)
        assert isinstance(caught.value, AirflowFailException), "no retry can mend it"
    assert manifest(tmp_path)[1]["state"] == "moderated"


# The others wait for the price that the first one tells.
STOP_AT_ONCE = {"max_failures": 0, "max_cost": 100, "max_active": 8}


@pytest.mark.parametrize("arguments", [{"max_failures": 0}, {"max_failures": 2}, STOP_AT_ONCE])
def test_after_failures_nothing_more_is_submitted(
    flux_connection: FluxEmulator, tmp_path: Path, arguments: dict[str, Any]
) -> None:
    flux_connection.fault(on="submit", http=422, json={"detail": "no"}, times=None)
    with pytest.raises(errors.FluxBatchError):
        run(tmp_path, [f"pear {number}" for number in range(8)], **{"max_active": 1, **arguments})
    tried = 3 if arguments.get("max_failures") else 1
    assert flux_connection.stats()["submit_requests"] == tried
    assert Counter(line["state"] for line in manifest(tmp_path)) == {"failed": tried, "not_submitted": 8 - tried}


def test_an_image_that_cannot_be_had_at_once_is_asked_for_again(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="download", http=500, times=4)  # more often than one download tries
    assert run(tmp_path, ["a pear"])["counts"]["stored"] == 1
    assert flux.stats()["submits"] == 1


@pytest.mark.parametrize(("model", "price"), [("flux-dev", 2.5), ("flux-3-image", 6)])
def test_no_submit_passes_the_cost(flux: FluxEmulator, tmp_path: Path, model: str, price: float) -> None:
    requests = [f"pear {number}" for number in range(6)]
    arguments: Any = {"model": model, "parameters": None, "max_cost": 3.4 * price}
    for _ in range(2):
        with pytest.raises(errors.FluxBatchError, match=r"3 not submitted\): max_cost is reached\.") as caught:
            run(tmp_path, requests, **arguments)
        assert isinstance(caught.value, AirflowFailException)
        assert flux.stats()["submits"] == 3
    assert run(tmp_path, requests, **{**arguments, "max_cost": 6 * price})["cost"] == 6 * price


LARGE = {"model": "flux-2-pro", "parameters": {"width": 2048, "height": 2048}}
MODELS = ("flux-dev", "flux-2-pro", "flux-pro-1.1", "flux-kontext-pro", "flux-2-klein-4b", "flux-3-image")


@pytest.mark.parametrize(
    ("requests", "max_cost", "paid"),
    [
        ([{"model": model, "prompt": "a pear"} for model in MODELS], 1, 2.5),
        (["a pear", *({**LARGE, "prompt": f"fig {number}"} for number in range(7))], 50, 2.5 + 6 * 7.5),
        # What is cheaper goes on where the dear ones may not.
        ([*({**LARGE, "prompt": f"fig {number}"} for number in range(3)), "a pear", "a quince"], 20, 2 * 7.5 + 2 * 2.5),
    ],
)
def test_each_model_and_size_has_its_price(
    flux_connection: FluxEmulator, tmp_path: Path, requests: Any, max_cost: float, paid: float
) -> None:
    with pytest.raises(errors.FluxBatchError, match="max_cost is reached"):
        run(tmp_path, requests, parameters=None, max_cost=max_cost)
    lines = manifest(tmp_path)
    assert sum(line["cost"] or 0 for line in lines) == paid
    assert {line["error"] for line in lines if line["state"] == "not_submitted"} == {"max_cost is reached"}


@pytest.mark.parametrize(("model", "prompt", "price"), [("flux-3-image", "fig", 6), ("flux-dev", "gore", 0)])
def test_what_a_job_found_again_cost_is_learned_at_its_end(
    flux: FluxEmulator, tmp_path: Path, model: str, prompt: str, price: float
) -> None:
    flux.settings(duration=4)
    arguments: Any = {"model": model, "parameters": None, "on_moderated": "skip"}
    with pytest.raises(AirflowTaskTimeout), timeout(2):
        run(tmp_path, [f"{prompt} 1", f"{prompt} 2"], **arguments)
    assert run(tmp_path, [f"{prompt} 1", f"{prompt} 2"], **arguments)["cost"] == 2 * price
    assert flux.stats()["submits"] == 2


def test_what_a_lost_image_cost_is_told(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="download", http=404, times=None)
    for _ in range(2):
        with pytest.raises(errors.FluxBatchError, match=r"paid 2\.5 credits"):
            run(tmp_path, ["a pear"])
        (line,) = manifest(tmp_path)
        assert (line["state"], line["cost"]) == ("failed", 2.5)
    assert flux.stats()["submits"] == 1


@pytest.mark.parametrize(
    "fault", [{"http": 402}, {"http": 401}, {"html": "<html>Welcome</html>"}, {"redirect": "https://example.org/"}]
)
def test_what_the_account_is_refused_is_asked_for_once(
    flux_connection: FluxEmulator, tmp_path: Path, fault: dict[str, Any]
) -> None:
    flux_connection.fault(on="submit", times=None, **fault)
    with pytest.raises(errors.FluxBatchError) as caught:
        run(tmp_path, [f"pear {number}" for number in range(60)])
    assert isinstance(caught.value, AirflowFailException)
    assert flux_connection.stats()["submit_requests"] <= SUBMITS
    assert Counter(line["state"] for line in manifest(tmp_path))["not_submitted"] >= 60 - SUBMITS


def test_the_error_tells_of_the_money_though_the_manifest_cannot_be_written(
    flux_connection: FluxEmulator, tmp_path: Path
) -> None:
    flux_connection.settings(duration=2)

    def block() -> None:
        wait_for(lambda: flux_connection.stats()["submits"] == 2, timeout=60, what="the submits")
        (tmp_path / "manifest.jsonl").mkdir()

    with ThreadPoolExecutor() as threads:
        blocking = threads.submit(block)
        with pytest.raises(errors.FluxBatchError, match=r"1 moderated.* paid 2.5 credits;.* could not be written"):
            run(tmp_path, ["a pear", "nsfw"])
        blocking.result()
    (tmp_path / "manifest.jsonl").rmdir()
    assert run(tmp_path, ["a pear", "nsfw"], on_moderated="skip")["counts"]["reused"] == 1


def test_a_refused_batch_is_counted_and_an_alias_is_told_of_no_batch_without_images(
    flux_connection: FluxEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorder = Recorder()
    monkeypatch.setattr(metrics, "_stats", lambda: recorder)
    with pytest.raises(AirflowFailException):
        run(tmp_path, [])
    assert [(name, tags["reason"]) for name, _, tags in recorder.sent] == [("flux.failed", "FluxBadRequestError")]
    alias, asset = AssetAlias("pears"), Asset(name="pears", uri="flux://pears")
    for requests, told in ((["nsfw"], 0), (["a pear"], 1)):
        events = OutletEventAccessors()
        operator = batch(tmp_path, requests, on_moderated="skip", outlets=[alias, asset])
        own = operator.execute(context() | {"outlet_events": events})["manifest"]
        assert len(events[alias].asset_alias_events) == told
        extra = events[asset].extra
        assert (extra["uri"], extra["manifest"]) == (f"file://{tmp_path}/manifest.jsonl", own)


def test_what_the_tries_before_paid_counts(flux: FluxEmulator, tmp_path: Path) -> None:
    requests = [f"{when} pear {number}" for when in ("early", "late") for number in range(3)]
    flux.fault(on="submit", http=422, json={"detail": "no"}, match="early", times=3)
    with pytest.raises(errors.FluxBatchError, match="3 failed"):
        run(tmp_path, requests)
    with pytest.raises(errors.FluxBatchError, match="max_cost is reached"):
        run(tmp_path, requests, max_cost=4 * 2.5)
    assert flux.stats()["submits"] == 4
    assert Counter(line["state"] for line in manifest(tmp_path)) == {"stored": 4, "not_submitted": 2}


def test_what_is_stored_is_told_by_a_retry_that_stops(flux: FluxEmulator, tmp_path: Path) -> None:
    requests = ["a bad pear", "a fig", "a quince"]
    flux.fault(on="submit", http=422, json={"detail": "no"}, match="bad", times=None)
    for max_failures in (None, 0):
        with pytest.raises(errors.FluxBatchError, match="1 of 3 images are missing"):
            run(tmp_path, requests, max_failures=max_failures)
        assert [line["state"] for line in manifest(tmp_path)] == ["failed", "stored", "stored"]
    assert flux.stats()["submits"] == 2


def test_at_its_execution_timeout_it_says_which_jobs_are_left(
    flux: FluxEmulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flux.settings(duration=4)
    operator = batch(tmp_path, ["a pear", "a fig", "a quince"], max_active=2)
    with pytest.raises(AirflowTaskTimeout), timeout(2):
        operator.execute(context())
    operator.on_kill()
    said = capsys.readouterr().out
    assert "are still running" in said
    assert all(line["id"] in said for line in manifest(tmp_path) if line["state"] == "failed")
    assert Counter(line["state"] for line in manifest(tmp_path)) == {"failed": 2, "not_submitted": 1}
    assert operator.execute(context())["counts"]["stored"] == 3
    assert flux.stats()["submits"] == 3


def test_an_account_with_less_room_than_asked_for(
    flux: FluxEmulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    # Longer than the timeout in all, and yet each image comes within it.
    flux.settings(max_active=2, duration=1)
    told = run(tmp_path, [f"pear {number}" for number in range(14)], max_active=12, timeout=6)
    stats = flux.stats()
    assert (told["counts"]["stored"], stats["submits"]) == (14, 14)
    assert stats["submit_requests"] < 28, "it does not knock all the time"
    assert capsys.readouterr().out.count("refused") <= 11, "a line at each tenth, and not one each"


def test_an_account_that_stays_full_ends_the_submits(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    flux_connection.settings(max_active=0)
    with pytest.raises(errors.FluxBatchError, match="FluxRateLimitError") as caught:
        run(tmp_path, [f"pear {number}" for number in range(60)], timeout=1)
    assert not isinstance(caught.value, AirflowFailException), "a retry comes when there is room"
    assert flux_connection.stats()["submit_requests"] < 20


def test_an_input_image_that_is_missing_fails_its_request_alone(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    requests = [{"prompt": "b", "input_image": f"file://{tmp_path}/no.png"}, "a pear"]
    with pytest.raises(errors.FluxBatchError, match=r"no\.png"):
        run(tmp_path, requests, model="flux-2-pro", parameters=None)
    assert [line["state"] for line in manifest(tmp_path)] == ["failed", "stored"]


SCRIPT = """
import sys
from tests.integration.test_batch import batch
from tests.integration.running import context
from pathlib import Path

print(batch(Path(sys.argv[1]), [f"pear {n}" for n in range(100)]).execute(context()))
"""


def test_killed_twice_in_the_middle_it_pays_for_each_image_once(
    flux_connection: FluxEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What a submit may take, and so what a claim of a killed worker lasts, follows from the timeout.
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
    assert len({line["id"] for line in manifest(folder)}) == 100
    for line in manifest(folder):
        assert hashlib.sha256((folder / line["file_name"]).read_bytes()).hexdigest() == line["sha256"]


def test_a_run_keeps_its_manifest_when_the_next_run_has_written_its_own(
    flux_connection: FluxEmulator, tmp_path: Path
) -> None:
    first = run(tmp_path, ["a pear"])
    second = run(tmp_path, ["a fig"], run_id="run-2")
    for result, prompt in ((first, "a pear"), (second, "a fig")):
        data = Path(result["manifest"].removeprefix("file://")).read_bytes()
        assert hashlib.sha256(data).hexdigest() == result["manifest_sha256"]
        assert json.loads(data)["prompt"] == prompt
    assert [line["prompt"] for line in manifest(tmp_path)] == ["a fig"], "the plain name is the newest"


def test_a_batch_that_fails_has_pushed_its_result(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    flux_connection.fault(on="submit", http=422, json={"detail": "no"}, match="bad", times=None)
    told = context()
    with pytest.raises(errors.FluxBatchError):
        batch(tmp_path, ["a pear", "a bad fig"]).execute(told)
    result = told["ti"].pushed["return_value"]
    assert (result["counts"]["stored"], result["counts"]["failed"], result["cost"]) == (1, 1, 2.5)
    data = Path(result["manifest"].removeprefix("file://")).read_bytes()
    assert hashlib.sha256(data).hexdigest() == result["manifest_sha256"]


def test_reaching_max_cost_may_end_green(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    prompts = [f"pear {number}" for number in range(5)]
    result = run(tmp_path, prompts, max_cost=2 * 2.5, on_max_cost="stop")
    assert (result["counts"]["stored"], result["counts"]["not_submitted"], result["cost"]) == (2, 3, 5.0)
    flux_connection.fault(on="submit", http=422, json={"detail": "no"}, match="bad", times=None)
    with pytest.raises(errors.FluxBatchError, match=r"1 of 6 images are missing"):
        run(tmp_path, ["a bad fig", *prompts], run_id="run-2", max_cost=2 * 2.5, on_max_cost="stop")


@pytest.mark.parametrize("settled", [1.0, 4.0])
def test_the_settled_cost_counts_everywhere(flux_connection: FluxEmulator, tmp_path: Path, settled: float) -> None:
    """The API estimates 2.5 credits for each job, and charges another price in the end."""
    flux_connection.settings(duration=0.2, settled_factor=settled / 2.5)
    result = run(tmp_path, [f"pear {number}" for number in range(6)], max_cost=9, max_active=1, on_max_cost="stop")
    stored = int(9 // settled) if settled > 2.5 else 6
    assert (result["counts"]["stored"], result["cost"]) == (stored, stored * settled)
    lines = [line for line in manifest(tmp_path) if line["state"] == "stored"]
    assert {line["cost"] for line in lines} == {settled}
    receipts = [json.loads((tmp_path / f"{line['file_name']}.json").read_text()) for line in lines]
    assert {(receipt["job"]["cost"], receipt["image"]["cost"]) for receipt in receipts} == {(settled, settled)}
    assert 10_000 - flux_connection.stats()["credits"] == pytest.approx(result["cost"])
