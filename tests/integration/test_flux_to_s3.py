"""FluxToS3Operator against the emulator and a real S3."""

from __future__ import annotations

import hashlib
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowSkipException

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
from tests.conftest import both_gateways
from tests.integration.running import context, run
from tests.servers.seaweed import SeaweedFS


def generated(**arguments: Any) -> dict[str, Any]:
    asked = {"model": "flux-dev", "prompt": "a red kite", "width": 256, "height": 256, "seed": 7, **arguments}
    return run(FluxGenerateOperator(task_id="generate", **asked))[0]


def upload(generation: Any, **arguments: Any) -> tuple[dict[str, Any], bool]:
    given = {"s3_key": "s3://flux/kite.jpeg", **arguments}
    return run(FluxToS3Operator(task_id="upload", generation=generation, **given))


@both_gateways
@pytest.mark.parametrize("waited", [True, False], ids=["waited", "not waited"])
@pytest.mark.parametrize("deferrable", [True, False], ids=["deferrable", "blocking"])
def test_generated_image_is_uploaded(flux: FluxEmulator, s3: SeaweedFS, waited: bool, deferrable: bool) -> None:
    generation = generated(wait_for_completion=waited)
    told, _ = upload(generation, s3_bucket=s3.bucket, s3_key="a/kite.jpeg", deferrable=deferrable)
    stored = s3.client().get_object(Bucket=s3.bucket, Key="a/kite.jpeg")
    data = stored["Body"].read()
    assert told["uri"] == f"s3://{s3.bucket}/a/kite.jpeg"
    assert (told["id"], told["model"], told["seed"]) == (generation["id"], "flux-dev", 7)
    assert (told["sha256"], told["bytes"]) == (hashlib.sha256(data).hexdigest(), len(data))
    assert stored["ContentType"] == "image/jpeg"
    expected = {"job-id": generation["id"], "model": "flux-dev", "seed": "7", "sha256": told["sha256"]}
    assert expected.items() <= stored["Metadata"].items()
    assert "sig=" not in json.dumps(told)


KEYS = ("size?=1", "size?=2", "lot #1", "lot #2", "sku:4711/x", "50%", "50%25", "a b", "birne-ä", "梨")


@pytest.mark.parametrize("bucket", ["flux", None], ids=["s3_bucket", "full URL"])
def test_key_with_special_characters_is_kept(flux_connection: FluxEmulator, s3: SeaweedFS, bucket: str | None) -> None:
    generation, before = generated(), "" if bucket else "s3://flux/"
    for key in KEYS:
        told, _ = upload(generation, s3_bucket=bucket, s3_key=f"{before}{key}.jpeg")
        assert told["uri"] == f"s3://flux/{key}.jpeg"
    stored = {item["Key"] for item in s3.client().list_objects_v2(Bucket="flux")["Contents"]}
    assert {key for key in stored if not key.endswith(".json")} == {f"{key}.jpeg" for key in KEYS}


@pytest.mark.parametrize(
    "url", ["S3://flux/kite.jpeg", "s3a://flux/kite.jpeg", "https://flux.s3.us-east-1.amazonaws.com/kite.jpeg"]
)
def test_full_urls_are_recognised_as_by_the_amazon_provider(
    flux_connection: FluxEmulator, s3: SeaweedFS, url: str
) -> None:
    assert upload(generated(), s3_key=url)[0]["uri"] == "s3://flux/kite.jpeg"


@pytest.mark.parametrize("waited", [True, False], ids=["waited", "not waited"])
def test_connection_in_the_uri_is_used_downstream(
    flux_connection: FluxEmulator, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch, waited: bool
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_MINE", json.dumps(s3.connection()))
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps({**s3.connection(), "password": "wrong"}))
    flux_connection.settings(duration=0 if waited else 15)  # so long that the triggerer stores it
    source = {"output_uri": "s3://mine@flux/a/kite.jpeg"} if waited else {"wait_for_completion": False}
    generation = generated(**source)
    if waited:
        assert generation["uri"] == "s3://mine@flux/a/kite.jpeg"
        flux_connection.reset()  # the stored image is the only source
    told, deferred = upload(generation, s3_key="s3://mine@flux/copy.jpeg")
    assert (told["uri"], deferred) == ("s3://mine@flux/copy.jpeg", not waited)
    edit = FluxGenerateOperator(
        task_id="edit", model="flux-kontext-pro", prompt="at night", parameters={"input_image": told}
    )
    assert run(edit)[0]["status"] == "Ready"


@pytest.mark.parametrize("nothing", [None, "None", ""])
def test_skipped_input_skips_the_upload(flux_connection: FluxEmulator, s3: SeaweedFS, nothing: Any) -> None:
    with pytest.raises(AirflowSkipException, match="no image to store"):
        upload(nothing)


def test_a_job_id_alone_is_enough(flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    told, _ = upload(generated(wait_for_completion=False)["id"])
    assert (told["uri"], told["model"]) == ("s3://flux/kite.jpeg", None)


def test_rendered_result_is_read(flux: FluxEmulator, s3: SeaweedFS) -> None:
    assert upload(str(generated()))[0]["model"] == "flux-dev"


def test_a_job_that_is_not_ready_is_waited_for_in_the_triggerer(
    flux: FluxEmulator, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    flux.settings(duration=15)  # surely longer than the defer_after on the worker
    told, deferred = upload(generated(wait_for_completion=False))
    assert deferred
    assert s3.client().head_object(Bucket=s3.bucket, Key="kite.jpeg")["ContentLength"] == told["bytes"]


def test_an_image_that_is_stored_already_is_copied(flux: FluxEmulator, s3: SeaweedFS, tmp_path: Path) -> None:
    generation = generated(output_uri=f"file://{tmp_path}/kite.jpeg")
    flux.reset()  # the API has forgotten the job; the stored image is the source
    told, _ = upload(generation)
    assert (told["sha256"], told["uri"]) == (generation["sha256"], "s3://flux/kite.jpeg")
    again, _ = upload(told, s3_key="s3://flux/copy.jpeg")
    assert (again["sha256"], again["uri"]) == (generation["sha256"], "s3://flux/copy.jpeg")


def test_changed_image_is_not_copied(flux: FluxEmulator, s3: SeaweedFS, tmp_path: Path) -> None:
    generation, other = (generated(output_uri=f"file://{tmp_path}/{seed}.jpeg", seed=seed) for seed in (7, 8))
    (tmp_path / "8.jpeg").replace(tmp_path / "7.jpeg")
    told, _ = upload(generation)
    assert generation["sha256"] == told["sha256"] != other["sha256"]
    assert flux.stats()["downloads"] == 3
    (tmp_path / "7.jpeg").unlink()
    assert upload(generation, s3_key="s3://flux/again.jpeg")[0]["sha256"] == generation["sha256"]


def test_a_retry_that_finds_its_own_image_succeeds_without_the_api(flux: FluxEmulator, s3: SeaweedFS) -> None:
    generation = generated()
    first, _ = upload(generation)
    flux.reset()
    second, _ = upload(generation)
    for name in ("id", "model", "seed", "uri", "sha256", "bytes", "width", "height", "format", "content_type"):
        assert second[name] == first[name], name


def test_other_object_is_replaced_only_with_replace(flux: FluxEmulator, s3: SeaweedFS) -> None:
    s3.client().put_object(Bucket=s3.bucket, Key="kite.jpeg", Body=b"precious")
    generation = generated()
    with pytest.raises(
        errors.FluxImageExistsError, match=r"replace=False keeps it.*Choose another destination"
    ) as caught:
        upload(generation)
    assert isinstance(caught.value, AirflowFailException)
    assert s3.client().get_object(Bucket=s3.bucket, Key="kite.jpeg")["Body"].read() == b"precious"
    told, _ = upload(generation, replace=True)
    assert s3.client().head_object(Bucket=s3.bucket, Key="kite.jpeg")["ContentLength"] == told["bytes"]


def test_s3_arguments_are_passed_to_the_upload(flux: FluxEmulator, s3: SeaweedFS) -> None:
    extra = {"CacheControl": "max-age=60", "Metadata": {"team": "kites"}, "ContentType": "image/x-kite"}
    upload(generated(), extra_args=extra, acl_policy="private")
    stored = s3.client().head_object(Bucket=s3.bucket, Key="kite.jpeg")
    assert (stored["CacheControl"], stored["ContentType"]) == ("max-age=60", "image/x-kite")
    assert (stored["Metadata"]["team"], stored["Metadata"]["seed"]) == ("kites", "7")


def test_customer_key_is_used_for_reads(flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    secret = {"SSECustomerAlgorithm": "AES256", "SSECustomerKey": "0123456789abcdef0123456789abcdef"}
    generation = generated()
    first, deferred = upload(generation, extra_args=secret)
    again, _ = upload(generation, extra_args=secret)
    assert (first["sha256"], again["sha256"], deferred) == (first["sha256"], first["sha256"], False)
    note = s3.client().get_object(Bucket=s3.bucket, Key="kite.jpeg.json", **secret)["Body"].read()
    assert json.loads(note)["state"] == "stored"


def test_image_only_arguments_are_not_applied_to_the_receipt(flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    upload(generated(), extra_args={"CacheControl": "immutable", "Tagging": "public=yes"}, acl_policy="public-read")
    note = s3.client().head_object(Bucket=s3.bucket, Key="kite.jpeg.json")
    assert ("CacheControl" in note, note["ContentType"]) == (False, "application/json")
    assert not s3.client().get_object_tagging(Bucket=s3.bucket, Key="kite.jpeg.json")["TagSet"]


def test_image_stored_by_the_triggerer_is_recognised(flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    """Where its event did not arrive, or that of another triggerer did."""
    stored, _ = upload(generated())
    operator = FluxToS3Operator(task_id="upload", generation=stored["id"], s3_key="s3://flux/kite.jpeg")
    told = operator.execute_complete(context(), {"outcome": "ready", "id": stored["id"]})
    assert told["sha256"] == stored["sha256"]


def test_receipt_records_a_moderated_job(flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    with pytest.raises(errors.FluxModeratedError):
        upload(generated(prompt="nsfw", wait_for_completion=False))
    note = s3.client().get_object(Bucket=s3.bucket, Key="kite.jpeg.json")["Body"].read()
    assert (json.loads(note)["state"], "moderated" in json.loads(note)["reason"]) == ("failed", True)


@pytest.mark.parametrize(
    ("extra", "metadata"),
    [
        (None, {}),
        ("None", {}),
        ({"Metadata": None}, {}),
        ("{'Metadata': {'team': 'Käte'}}", {"team": "K%C3%A4te"}),
        ({"Metadata": {"issue": 7}}, {"issue": "7"}),
    ],
    ids=str,
)
def test_rendered_extra_args_are_read(
    flux_connection: FluxEmulator, s3: SeaweedFS, extra: Any, metadata: dict[str, str]
) -> None:
    told, _ = upload(generated(), extra_args=extra)
    stored = s3.client().head_object(Bucket=s3.bucket, Key="kite.jpeg")
    assert {"sha256": told["sha256"], **metadata}.items() <= stored["Metadata"].items()


def test_uploaded_image_of_any_job_id_is_found(flux_connection: FluxEmulator, s3: SeaweedFS, tmp_path: Path) -> None:
    generation = {**generated(output_uri=f"file://{tmp_path}/x.jpeg"), "id": "jöb\n%7"}
    first, _ = upload(generation)
    (tmp_path / "x.jpeg").unlink()
    assert upload(generation)[0]["id"] == first["id"] == "jöb\n%7"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"generation": "no id"}, "neither a FLUX job id"),
        ({"generation": [{"id": "a"}, {"id": "b"}]}, r"a list of 2 \(use .expand"),
        ({"generation": {"model": "x"}}, "without an 'id'"),
        ({"s3_bucket": "flux", "s3_key": "s3://flux/kite.jpeg"}, "is a full URL, which names a bucket too"),
        ({"s3_key": "kite.jpeg"}, "name no object"),
        ({"s3_key": None}, "name no object"),
        ({"s3_key": "s3:///kite.jpeg"}, "names no bucket"),
        ({"s3_key": "https://example.com/flux/kite.jpeg"}, "names no object"),
        ({"s3_key": "s3://AKIA:secret@flux/kite.jpeg"}, "holds credentials"),
        ({"s3_key": "s3://no_such_connection@flux/kite.jpeg"}, "no connection 'no_such_connection'"),
        ({"s3_key": "s3://flux/folder/"}, "name no object"),
        ({"s3_key": "s3://no-such-bucket/kite.jpeg"}, "no bucket"),
        ({"extra_args": {"Colour": "red"}}, "Colour"),
        ({"extra_args": {"Metadata": "team=kites"}}, "Metadata must be a dict"),
        ({"extra_args": "red"}, "extra_args must be a dict"),
    ],
)
def test_invalid_input_fails_before_download(
    flux_connection: FluxEmulator, s3: SeaweedFS, arguments: dict[str, Any], says: str
) -> None:
    given = {"generation": "abc", **arguments}
    with pytest.raises(AirflowFailException, match=says):
        upload(given.pop("generation"), **given)
    assert flux_connection.stats()["polls"] == 0


def test_a_job_the_api_does_not_know_is_an_error_that_names_it(flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    with pytest.raises(errors.FluxTimeoutError, match=r"Job gone-1 was not ready .*Task not found"):
        upload("gone-1", timeout=1, deferrable=False)


def test_a_broken_image_never_reaches_s3(flux: FluxEmulator, s3: SeaweedFS) -> None:
    generation = generated()
    flux.fault(on="download", truncate=0.5, times=None)
    with pytest.raises(errors.FluxBadImageError, match=r"is finished and was billed.*is not billed again"):
        upload(generation)
    keys = [item["Key"] for item in s3.client().list_objects_v2(Bucket=s3.bucket)["Contents"]]
    assert keys == ["kite.jpeg.json"]


def test_upload_uses_constant_memory(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> None:
    with FluxEmulator(process=True) as flux:  # its own memory does not count
        monkeypatch.setenv("AIRFLOW_CONN_FLUX_DEFAULT", json.dumps(flux.connection()))
        generation = generated()
        upload(generation, s3_key="s3://flux/warm.jpeg")  # what is imported on first use does not count either
        flux.fault(on="download", pad=48 * 1024 * 1024)
        tracemalloc.start()
        told, _ = upload(generation)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert told["bytes"] > 48 * 1024 * 1024
    assert peak < told["bytes"] * 0.75  # boto3's own tables take 25 MB
