"""FluxGenerateOperator against the emulator and a real S3."""

from __future__ import annotations

import hashlib
import json
import logging
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException, TaskDeferred

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.operators.flux import REQUEST_FIELDS, FluxGenerateOperator
from airflow_provider_flux.triggers.flux import FluxResultTrigger
from airflow_provider_flux.triggers.pause import PauseTrigger
from tests.conftest import both_gateways
from tests.integration.running import context, fire, fire_payload, resumed_with, run
from tests.servers.seaweed import SeaweedFS

PROMPT = "a red kite over the sea"


def generate(**arguments: Any) -> FluxGenerateOperator:
    given = {"model": "flux-dev", "prompt": PROMPT, "width": 256, "height": 256, "seed": 7, **arguments}
    return FluxGenerateOperator(task_id="generate", **given)


def test_every_request_field_uri_and_connection_is_templated() -> None:
    numbers = {"defer_after", "timeout", "poll_interval", "max_bytes", "moderation_retries", "budget"}
    policies = {"reuse", "on_orphan", "on_expired", "on_moderated"}
    places = {"output_uri", "aws_conn_id", "flux_conn_id"}
    fields = {*REQUEST_FIELDS, "model", "parameters"}
    assert fields | places | numbers | policies == set(FluxGenerateOperator.template_fields)


@both_gateways
@pytest.mark.parametrize("deferrable", [True, False])
def test_result_without_output_uri_has_no_image_fields(flux: FluxEmulator, deferrable: bool) -> None:
    told, deferred = run(generate(deferrable=deferrable))
    assert not deferred
    assert (told["status"], told["model"], told["seed"], told["cost"]) == ("Ready", "flux-dev", 7, pytest.approx(2.5))
    assert told["duration"] > 0
    assert not {"uri", "width", "height", "format", "bytes", "sha256", "prompt"} & told.keys()
    assert told["submitted_at"].endswith("+00:00")
    assert "sig=" not in json.dumps(told)


@both_gateways
@pytest.mark.parametrize("way", ["defer_after", "deferred", "blocking"])
def test_image_is_stored_in_s3(flux: FluxEmulator, s3: SeaweedFS, way: str) -> None:
    if way != "defer_after":
        flux.settings(duration=1)
    told, deferred = run(
        generate(
            output_uri=f"s3://{s3.bucket}/a folder/kite?.png",
            output_format="png",
            defer_after=0 if way == "deferred" else 5,
            deferrable=way != "blocking",
            poll_interval=0.2,
        )
    )
    assert deferred is (way == "deferred")
    stored = s3.client().get_object(Bucket=s3.bucket, Key="a folder/kite?.png")
    data = stored["Body"].read()
    assert told["uri"] == f"s3://{s3.bucket}/a folder/kite?.png"
    assert (told["format"], told["width"], told["height"]) == ("png", 256, 256)
    assert (told["bytes"], told["sha256"]) == (len(data), hashlib.sha256(data).hexdigest())
    assert stored["ContentType"] == told["content_type"] == "image/png"
    assert stored["Metadata"]["job-id"] == told["id"]
    assert (stored["Metadata"]["seed"], stored["Metadata"]["sha256"]) == ("7", told["sha256"])
    assert flux.stats()["submits"] == 1
    assert json.loads(json.dumps(told)) == told


def test_folder_uri_gets_a_derived_file_name(flux: FluxEmulator, tmp_path: Path) -> None:
    folder = f"file://{tmp_path}/new/folder/"
    names = [
        run(generate(output_uri=folder, **change), map_index)[0]["uri"].removeprefix(folder)
        for map_index, change in ((-1, {}), (3, {}), (3, {}), (3, {"seed": 8, "output_format": "webp"}))
    ]
    assert names[1] == names[2]
    assert len(set(names)) == 3
    assert names[0].startswith("generate-")
    assert names[1].startswith("generate-3-")
    assert (names[0].endswith(".jpeg"), names[3].endswith(".webp")) == (True, True)
    there = {path.name for path in (tmp_path / "new" / "folder").iterdir()}
    assert there == {*names, *(f"{name}.json" for name in names)}


@both_gateways
def test_rendered_text_is_converted_and_empty_fields_are_omitted(flux: FluxEmulator) -> None:
    run(
        generate(
            width="512", height="256", seed="9", guidance="2.5", steps="", webhook_url="", prompt_upsampling="true"
        )
    )
    assert flux.stats()["jobs"][0]["parameters"] == {
        "prompt": PROMPT,
        "width": 512,
        "height": 256,
        "seed": 9,
        "guidance": 2.5,
        "prompt_upsampling": True,
    }


@both_gateways
def test_unknown_parameters_are_sent_with_one_warning(flux: FluxEmulator, caplog: pytest.LogCaptureFixture) -> None:
    asked = {"aspect_ratio": "16:9", "raw": "true", "invented": "x"}
    run(generate(model="flux-pro-1.1-ultra", width=None, height=None, parameters=asked))
    sent = flux.stats()["jobs"][0]["parameters"]
    assert (sent["aspect_ratio"], sent["raw"], sent["invented"]) == ("16:9", True, "x")
    assert [line for line in caplog.messages if "invented" in line] == [
        "Sent without validation: unknown parameter 'invented'."
    ]


@both_gateways
def test_validation_follows_the_connections_gateway(flux: FluxEmulator) -> None:
    # CometAPI wants a prompt; Black Forest Labs wants the image itself, which nobody here can reach.
    operator = generate(prompt=None, image_prompt="https://pictures.invalid/kite.png")
    comet = operator._hook.endpoint.gateway == "cometapi"
    says = "prompt is empty" if comet else "Downloading the input image failed .*Nothing was billed"
    with pytest.raises(errors.FluxError, match=says):
        run(operator)
    assert flux.stats()["submit_requests"] == 0


@both_gateways
def test_not_waiting_returns_the_job(flux: FluxEmulator) -> None:
    told, _ = run(generate(wait_for_completion=False))
    assert (told["status"], told["model"]) == ("Pending", "flux-dev")
    assert told["id"] == flux.stats()["jobs"][0]["id"]
    assert flux.stats()["polls"] == 0


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"width": "wide"}, "width must be a whole number"),
        ({"prompt": " "}, "prompt is empty"),
        ({"prompt": "None"}, "prompt is empty"),
        ({"prompt": {}}, "prompt is empty"),
        ({"prompt": float("nan")}, "prompt is empty"),
        ({"prompt": float("inf")}, "prompt must be text, not the number inf"),
        ({"prompt": {"a": [float("nan")]}}, "prompt cannot be sent as JSON"),
        ({"model": "flux-2-pro", "parameters": {"input_image": "None"}}, "input_image is empty"),
        ({"model": "flux-3-image", "parameters": {"images": ["https://host/x.png", None]}}, "images has an empty item"),
        ({"model": "flux-9-new", "parameters": {"images": ["", "x"]}}, "images has an empty item"),
        ({"model": ""}, "not the name of a FLUX model"),
        ({"parameters": {"seed": 8}}, "Given twice, as an argument and in parameters: seed"),
        (
            {"parameters": {"variants": 4}},
            "variants asks for several images, which FluxGenerateBatchOperator generates",
        ),
        ({"moderation_retries": "few"}, "moderation_retries is 'few'"),
        ({"moderation_retries": "1", "output_uri": None}, "moderation_retries needs a receipt"),
        ({"parameters": "seed=8"}, "parameters must be a dict"),
        ({"parameters": {"sed": 8}, "strict": True}, r"unknown parameter 'sed' \(did you mean seed\?\)"),
        ({"model": "flux-2-pro", "steps": "20"}, "steps is not a parameter of flux-2-pro"),
        ({"output_uri": "s3://bucket-without-key"}, "names no file"),
        ({"output_uri": "s3:///key"}, "names no bucket"),
        ({"output_uri": "kite.png"}, "not a URI"),
        ({"output_uri": "telepathy://mind/kite.png"}, "cannot be opened"),
        ({"output_uri": "s3://no-such-bucket/kite.png"}, "There is no bucket 'no-such-bucket'"),
        ({"output_uri": "file:///proc/no/kite.png"}, "cannot be written"),
        ({"output_uri": "file:///tmp"}, "is a folder"),
        ({"output_uri": "file://tmp/kite.png"}, "must have three slashes"),
        ({"output_uri": "s3://[bad/kite.png"}, "is not a URI"),
        ({"output_uri": "s3://flux/" + "k" * 1020}, "longer than the 1024 bytes"),
        ({"timeout": "soon"}, "timeout is 'soon'"),
        ({"poll_interval": 0}, "poll_interval is 0"),
        ({"defer_after": None}, "defer_after is None"),
        ({"parameters": {"x": float("nan")}}, "cannot be sent as JSON"),
    ],
)
def test_invalid_input_fails_before_submit(
    flux_connection: FluxEmulator, s3: SeaweedFS, wrong: dict[str, Any], says: str
) -> None:
    with pytest.raises(AirflowFailException, match=says) as caught:
        run(generate(**wrong))
    assert "Nothing was billed." in str(caught.value)
    assert flux_connection.stats()["submit_requests"] == 0


def test_unreachable_s3_fails_before_submit(
    flux_connection: FluxEmulator, unused_port: int, monkeypatch: pytest.MonkeyPatch, s3: SeaweedFS
) -> None:
    connection = s3.connection()
    connection["extra"] |= {
        "endpoint_url": f"http://127.0.0.1:{unused_port}",
        "config_kwargs": {"retries": {"total_max_attempts": 1}},
    }
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    with pytest.raises(errors.FluxStoreError, match=r"cannot be reached.*Nothing was billed"):
        run(generate(output_uri="s3://flux/kite.png"))
    assert flux_connection.stats()["submit_requests"] == 0


@pytest.mark.parametrize(
    ("wrong", "uri", "says"),
    [
        ({"login": "a-stranger"}, "s3://flux/kite.png", "S3 refuses the credentials"),
        ({"password": "wrong"}, "s3://flux/kite.png", "S3 refuses the credentials"),
        ({}, "s3://flux/../kite.png", "contains the part"),
        ({}, f"s3://flux/{'k' * 1020}", "longer than the 1024 bytes"),
    ],
    ids=["login", "password", "dots", "long"],
)
def test_refused_s3_key_fails_before_submit(
    flux_connection: FluxEmulator,
    s3: SeaweedFS,
    monkeypatch: pytest.MonkeyPatch,
    wrong: dict[str, str],
    uri: str,
    says: str,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps({**s3.connection(), **wrong}))
    with pytest.raises(AirflowFailException, match=f"{says}.*Nothing was billed"):
        run(generate(output_uri=uri))
    assert flux_connection.stats()["submit_requests"] == 0


@both_gateways
@pytest.mark.parametrize("defer_after", [0, 5])
def test_a_moderated_prompt_is_not_retried(flux: FluxEmulator, defer_after: float) -> None:
    with pytest.raises(AirflowFailException, match=r"Job .* was moderated .*Sexual Content.*does not bill") as caught:
        run(generate(prompt="nsfw", defer_after=defer_after))
    assert isinstance(caught.value, errors.FluxModeratedError)


@both_gateways
def test_a_failed_job_says_what_a_retry_does(flux: FluxEmulator) -> None:
    flux.fault(on="poll", status="Error", details={"error": "out of paint"}, times=None)
    with pytest.raises(errors.FluxJobFailedError, match=r"out of paint.*A retry submits a new job"):
        run(generate())


@pytest.mark.parametrize("arguments", [{"deferrable": False}, {"defer_after": 0}, {"defer_after": 60}])
def test_timeout_names_the_job_and_its_billing(flux: FluxEmulator, arguments: dict[str, Any]) -> None:
    flux.settings(duration=60)
    with pytest.raises(errors.FluxTimeoutError) as caught:
        run(generate(timeout=1, poll_interval=0.2, **arguments))
    job_id = flux.stats()["jobs"][0]["id"]
    assert f"Job {job_id} was not ready" in str(caught.value)
    assert f"Job {job_id} was accepted and is billed if it finishes." in str(caught.value)


@both_gateways
def test_failed_polls_in_the_triggerer_are_retried(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.settings(duration=1)
    flux.fault(on="poll", http=500, times=2, after=1)
    told, deferred = run(generate(defer_after=0, poll_interval=0.1, output_uri=f"file://{tmp_path}/x.jpeg"))
    assert deferred
    assert Path(told["uri"].removeprefix("file://")).stat().st_size == told["bytes"]


@both_gateways
def test_the_trigger_carries_ids_and_no_secret(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.settings(duration=1)
    with pytest.raises(TaskDeferred) as deferral:
        generate(defer_after=0, webhook_secret="s3cr3t-hook", output_uri=f"file://{tmp_path}/x.png").execute(context())
    stored = json.dumps(deferral.value.trigger.serialize()) + json.dumps(fire(deferral.value.trigger))
    for secret in (flux.key, PROMPT, "s3cr3t-hook", "sig=", "sample"):
        assert secret not in stored
    timeout = deferral.value.timeout
    assert timeout is not None
    assert timeout.total_seconds() == pytest.approx(660, abs=5)  # a net behind the trigger's own deadline


def test_a_triggerer_that_cannot_wait_hands_back_to_the_worker(
    flux: FluxEmulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    flux.settings(duration=1)
    operator = generate(defer_after=0, output_uri=f"file://{tmp_path}/x.jpeg")
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(context())
    deferral.value.trigger.flux_conn_id = "a_connection_that_only_workers_have"
    event = fire(deferral.value.trigger)
    assert event["outcome"] == "handed back"
    assert operator.execute_complete(context(), event)["uri"] == f"file://{tmp_path}/x.jpeg"


@pytest.mark.parametrize("event", [None, {}, {"outcome": "novel"}, "text"])
def test_unrecognised_event_is_an_error(flux_connection: FluxEmulator, event: Any) -> None:
    with pytest.raises(errors.FluxServiceError, match="unrecognised event"):
        generate().execute_complete(context(), event)


@pytest.mark.parametrize("kwargs", [{}, {"job": "nonsense"}, {"job": {"id": 7}, "novel": 1}, {"deadline": "soon"}])
def test_the_trigger_s_constructor_never_raises(flux_connection: FluxEmulator, kwargs: dict[str, Any]) -> None:
    assert fire(FluxResultTrigger(**kwargs))["outcome"] in ("failed", "handed back")


def test_only_what_ends_the_task_is_logged_as_an_error(
    flux: FluxEmulator, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(generate(defer_after=0, output_uri=f"file://{tmp_path}/x.jpeg"))
    with pytest.raises(AirflowSkipException):
        run(generate(prompt="nsfw", on_moderated="skip"))
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]
    with pytest.raises(errors.FluxModeratedError):
        run(generate(prompt="nsfw"))
    withheld, money = (record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR)
    assert "moderat" in withheld.lower()
    assert "does not bill" in money


def test_worker_logs_the_triggerers_summary(
    flux: FluxEmulator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    operator = generate(defer_after=0, output_uri=f"file://{tmp_path}/folder/x.jpeg")
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(context())
    event = fire(deferral.value.trigger)
    assert event["outcome"] == "stored"
    # What the triggerer logs, and Airflow of the event there, stands in the task's log too.
    assert "the triggerer at" not in f"{capsys.readouterr().out}{event}"
    assert operator.execute_complete(context(), event).keys().isdisjoint({"waited", "triggerer", "polls"})
    told = rf"After \d+ s and \d+ polls? for job {event['id']}, the triggerer at .* stored the image"
    assert len(re.findall(told, capsys.readouterr().out)) == 1
    shutil.rmtree(tmp_path / "folder")
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(
        errors.FluxStoreError,
        match=r"is finished and was billed\. The image's URL expires at.*is not billed again",
    ):
        operator.execute_complete(context(), {**event, "outcome": "ready"})
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


@pytest.mark.parametrize("defer_after", [5, 0])
def test_too_large_image_can_be_stored_by_a_retry(flux: FluxEmulator, tmp_path: Path, defer_after: int) -> None:
    flux.settings(duration=1)
    uri = f"file://{tmp_path}/kite.jpeg"
    with pytest.raises(
        errors.FluxImageTooLargeError, match=r"max_bytes=100\. Job .* is finished and was billed"
    ) as caught:
        run(generate(output_uri=uri, defer_after=defer_after, max_bytes=100))
    assert isinstance(caught.value, AirflowFailException)
    assert not (tmp_path / "kite.jpeg").exists()
    told, _ = run(generate(output_uri=uri, max_bytes="1000000"))
    assert told["bytes"] == (tmp_path / "kite.jpeg").stat().st_size
    assert flux.stats()["submits"] == 1
    with pytest.raises(errors.FluxBadRequestError, match="max_bytes is 0"):
        run(generate(max_bytes=0))


def test_misleading_file_extension_is_warned_about(
    flux: FluxEmulator, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("right.jpg", "wrong.png"):
        run(generate(output_uri=f"file://{tmp_path}/{name}"))
    told = caplog.text + capsys.readouterr().out
    assert "right.jpg (256x256" in told
    assert told.count("is image/jpeg, although it is stored as") == 1
    assert f"although it is stored as file://{tmp_path}/wrong.png" in told


@both_gateways
def test_task_without_capacity_defers(flux: FluxEmulator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.uniform", lambda low, high: 0.01)
    flux.settings(max_active=0)
    operator = generate(output_uri=f"file://{tmp_path}/kite.jpeg")
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(context())
    assert isinstance(deferral.value.trigger, PauseTrigger)
    with pytest.raises(TaskDeferred) as again:
        operator.execute_queued(context(), **resumed_with(deferral.value))
    assert (again.value.method_name, (again.value.kwargs or {})["refusals"]) == ("execute_queued", 2)
    assert flux.stats()["submit_requests"] == 2
    flux.settings(max_active=24)
    resumed = generate(output_uri=f"file://{tmp_path}/kite.jpeg")  # a new process
    told = resumed.execute_queued(context(), **resumed_with(again.value))
    assert (told["status"], flux.stats()["submits"]) == ("Ready", 1)


@both_gateways
def test_waiting_for_capacity_ends_at_the_timeout(flux: FluxEmulator) -> None:
    flux.settings(max_active=0)
    with pytest.raises(errors.FluxRateLimitError, match=r"Nothing was billed.* A retry starts over") as caught:
        run(generate(timeout=0.5))
    assert not isinstance(caught.value, AirflowFailException)
    with pytest.raises(errors.FluxRateLimitError):
        generate().execute_queued(context(), deadline=1.0, refusals=3)
    with pytest.raises(errors.FluxRateLimitError):
        generate().execute_queued(context(), {"give_up": 1.0, "refusals": 3})


@pytest.mark.parametrize("event", [None, {}, {"give_up": "soon", "refusals": 1}])
def test_unreadable_event_restarts_the_wait_for_capacity(flux_connection: FluxEmulator, event: Any) -> None:
    assert generate().execute_queued(context(), event)["status"] == "Ready"


def test_triggers_of_an_earlier_version_pass_their_state_on(flux_connection: FluxEmulator, tmp_path: Path) -> None:
    state = {"give_up": time.time() + 60, "refusals": 1}
    assert fire_payload(PauseTrigger(until=0.0, told=state)) == state
    operator = generate(defer_after=0, output_uri=f"file://{tmp_path}/x.jpeg")
    with pytest.raises(TaskDeferred) as deferral:
        operator.execute(context())
    _, kwargs = deferral.value.trigger.serialize()
    payer = {"dag_id": "dag", "task_id": "generate", "run_id": "run-0", "map_index": -1}
    del kwargs["has_receipt"]
    earlier = FluxResultTrigger(**kwargs, remembered=False, paid_by=payer, unused_cost=1.5)
    assert not earlier.has_receipt
    result = operator.execute_complete(context(), fire_payload(earlier))
    assert (result["cost"], result["paid_by"]) == (1.5, payer)
