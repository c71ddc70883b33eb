"""Content credentials reach the store untouched, and everything that describes the image says whether it has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
from tests.integration.running import context, run
from tests.servers.seaweed import SeaweedFS

FIELDS: dict[str, Any] = {"model": "flux-dev", "prompt": "a red kite", "width": 256, "height": 256, "seed": 7}
every_format = pytest.mark.parametrize("format_", ["png", "jpeg", "webp"])


def generated(format_: str, **arguments: Any) -> tuple[dict[str, Any], bool]:
    return run(FluxGenerateOperator(task_id="generate", output_format=format_, **FIELDS, **arguments))


@every_format
@pytest.mark.parametrize("present", [True, False], ids=["present", "none"])
@pytest.mark.parametrize("way", ["deferred", "blocking", "FluxToS3Operator"])
def test_image_arrives_unchanged_and_is_described(
    flux: FluxEmulator, s3: SeaweedFS, format_: str, present: bool, way: str
) -> None:
    flux.settings(content_credentials=present, duration=0.5)
    key = f"kite.{format_}"
    if way == "FluxToS3Operator":
        generation, _ = generated(format_)
        assert "content_credentials" not in generation
        upload: dict[str, Any] = {"generation": generation, "s3_bucket": s3.bucket, "s3_key": key}
        told, _ = run(FluxToS3Operator(task_id="upload", **upload))
        again, _ = run(FluxToS3Operator(task_id="upload", **upload))
    else:
        arguments = {"output_uri": f"s3://{s3.bucket}/{key}", "defer_after": 0, "deferrable": way == "deferred"}
        told, deferred = generated(format_, **arguments)
        again, _ = generated(format_, **arguments)
        assert deferred is (way == "deferred")

    stored = s3.client().get_object(Bucket=s3.bucket, Key=key)
    delivered = httpx.get(str(FluxHook().get_result(told["id"]).sample), trust_env=False).content
    assert stored["Body"].read() == delivered
    assert told["format"] == format_
    assert told["content_credentials"] is again["content_credentials"] is present
    described = {"content-credentials": str(present).lower(), "digital-source-type": "trainedAlgorithmicMedia"}
    assert {**described, "model": "flux-dev"}.items() <= stored["Metadata"].items()
    receipt = json.loads(s3.client().get_object(Bucket=s3.bucket, Key=f"{key}.json")["Body"].read())
    assert (receipt["model"], receipt["digital-source-type"]) == ("flux-dev", "trainedAlgorithmicMedia")
    assert receipt["image"]["content_credentials"] is present


@every_format
def test_manifest_and_receipt_of_a_batch_describe_the_image(flux: FluxEmulator, tmp_path: Path, format_: str) -> None:
    requests: list[Any] = [{**FIELDS, "output_format": format_, "file_name": "kite"}, {**FIELDS, "prompt": "nsfw"}]
    batch = FluxGenerateBatchOperator(
        task_id="generate", requests=requests, output_uri=tmp_path.as_uri(), on_moderated="skip"
    )
    batch.execute(context())
    lines = (tmp_path / "manifest.jsonl").read_text().splitlines()
    assert [json.loads(line).get("content_credentials") for line in lines] == [True, None]
    receipt = json.loads((tmp_path / f"kite.{format_}.json").read_text())
    assert receipt["image"]["content_credentials"] is True
    assert receipt["digital-source-type"] == "trainedAlgorithmicMedia"
