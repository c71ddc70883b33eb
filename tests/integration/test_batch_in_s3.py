"""What a batch asks of S3: few requests, and never less than what paying once needs."""

from __future__ import annotations

import json
from collections import Counter
from typing import Any

import botocore.client
import pytest

from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.receipts.receipt import read_receipt
from airflow_provider_flux.storage import s3 as storage
from airflow_provider_flux.storage.s3 import S3Store
from tests.integration.running import context
from tests.servers.seaweed import SeaweedFS

PROMPTS = ["a pear", "a fig", "a quince", "a plum"]


@pytest.fixture
def requests(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Count the requests that are sent to S3, by the name of the operation."""
    sent: Counter[str] = Counter()
    real = botocore.client.BaseClient._make_api_call

    def call(self: Any, operation: str, arguments: dict[str, Any]) -> Any:
        sent[operation] += 1
        return real(self, operation, arguments)

    monkeypatch.setattr(botocore.client.BaseClient, "_make_api_call", call)
    return sent


def run(prompts: Any = PROMPTS, run_id: str = "run-1", **arguments: Any) -> dict[str, Any]:
    task = FluxGenerateBatchOperator(
        task_id="generate",
        requests=prompts,
        output_uri="s3://flux/hero/",
        model="flux-dev",
        parameters={"width": 256, "height": 256},
        **arguments,
    )
    result: dict[str, Any] = task.execute(context(run_id=run_id))
    return result


def receipts(s3: SeaweedFS) -> list[str]:
    listed = s3.client().list_objects_v2(Bucket=s3.bucket, Prefix="hero/")["Contents"]
    return [item["Key"] for item in listed if item["Key"].endswith(".json")]


def test_a_new_image_takes_five_requests(flux_connection: FluxEmulator, s3: SeaweedFS, requests: Counter[str]) -> None:
    assert run()["counts"]["stored"] == 4
    # The notes intent, submitted, about to be stored, stored; the image; and the manifest twice.
    assert requests == {"HeadBucket": 1, "ListObjectsV2": 1, "PutObject": 5 * 4 + 2}


def test_a_stored_image_takes_two_requests(
    flux_connection: FluxEmulator, s3: SeaweedFS, requests: Counter[str]
) -> None:
    run()
    requests.clear()
    assert run()["counts"]["reused"] == 4
    assert requests == {"HeadBucket": 1, "ListObjectsV2": 1, "GetObject": 4, "HeadObject": 4, "PutObject": 2}
    assert flux_connection.stats()["submit_requests"] == 4


def test_receipts_that_the_listing_does_not_show_are_found(
    flux_connection: FluxEmulator, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another run of the same recipes begins after the folder was listed."""
    run(reuse="always")
    monkeypatch.setattr(S3Store, "names", lambda self, limit: frozenset())
    result = run(run_id="run-2", reuse="always")
    assert (result["counts"]["reused"], result["cost"]) == (4, 0)
    assert flux_connection.stats()["submit_requests"] == 4


def test_folder_that_may_not_be_listed_or_is_too_long_is_read_receipt_by_receipt(
    flux_connection: FluxEmulator, s3: SeaweedFS, requests: Counter[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run()
    folder = S3Store(s3.bucket, "hero/any", "aws_default")
    monkeypatch.setattr(storage, "_PAGE", 3)
    s3.client().put_object(Bucket=s3.bucket, Key="hero/below/kite.png.json", Body=b"{}")
    assert folder.names(limit=2) is None
    assert sorted(name for name in folder.names(limit=1000) or () if name.endswith(".json")) == sorted(
        key.removeprefix("hero/") for key in receipts(s3) if "below" not in key
    )
    assert S3Store("no-such-bucket", "any", "aws_default").names(limit=1000) is None
    requests.clear()
    monkeypatch.setattr(S3Store, "names", lambda self, limit: None)
    assert run()["counts"]["reused"] == 4
    assert requests["GetObject"] == 4


@pytest.mark.parametrize("instead", ["foreign", "another job"])
def test_receipt_that_changes_while_its_job_runs_is_kept(
    flux_connection: FluxEmulator, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch, instead: str
) -> None:
    """The batch goes on from the receipt that it wrote; that it is not there any more must not be missed."""
    run(["a pear"], "run-0")
    (key,) = receipts(s3)
    stored = json.loads(s3.client().get_object(Bucket=s3.bucket, Key=key)["Body"].read())
    s3.client().delete_object(Bucket=s3.bucket, Key=key)
    there = json.dumps(stored).encode() if instead == "another job" else b'{"caption": "mine"}'
    real = S3Store.write_sidecar

    def write(self: S3Store, data: bytes, replaces: Any) -> Any:
        note = real(self, data, replaces)
        if read_receipt(data, "").state == "submitted":
            monkeypatch.undo()
            monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(s3.connection()))
            s3.client().put_object(Bucket=s3.bucket, Key=key, Body=there)
        return note

    image = s3.client().get_object(Bucket=s3.bucket, Key=key.removesuffix(".json"))["ETag"]
    monkeypatch.setattr(S3Store, "write_sidecar", write)
    if instead == "another job":
        with pytest.raises(Exception, match="1 failed"):
            run(["a pear"], reuse="never")
    else:
        assert run(["a pear"], reuse="never")["counts"]["stored"] == 1
    assert s3.client().get_object(Bucket=s3.bucket, Key=key)["Body"].read() == there
    is_kept = s3.client().get_object(Bucket=s3.bucket, Key=key.removesuffix(".json"))["ETag"] == image
    assert is_kept == (instead == "another job")
