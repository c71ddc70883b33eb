"""Receipts survive being written and read, and nothing else passes for one."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.exceptions import FluxError, FluxReceiptError
from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.receipts.receipt import Receipt, new_claim, read_receipt
from airflow_provider_flux.redaction import redact
from airflow_provider_flux.results import ImageResult

WHOLE = Receipt(
    "stored",
    "f00d",
    "flux-dev",
    {"prompt": "ein Schlüssel"},
    TaskIdentity("dag", "task", "run", 3),
    Job("abc", "flux-dev", cost=4.0, submitted_at=1.5),
    ImageResult(id="abc", uri="s3://b/k.png", bytes=7, sha256="beef"),
    orphans=1,
    claim=new_claim(60),
).with_state("stored")
WHOLE = WHOLE.with_unused(Job("def"), WHOLE.run)


def test_receipt_round_trip() -> None:
    assert read_receipt(WHOLE.to_json(), "here") == WHOLE
    assert read_receipt(Receipt("intent", "f00d").to_json().encode(), "here") == Receipt("intent", "f00d")
    newer = {**json.loads(WHOLE.to_json()), "a_field_of_a_later_release": 1}
    assert read_receipt(json.dumps(newer), "here") == WHOLE


def test_a_receipt_of_an_earlier_release_is_read() -> None:
    earlier = {
        name: value for name, value in json.loads(WHOLE.to_json()).items() if name not in ("claim", "duplicates")
    }
    receipt = read_receipt(json.dumps(earlier), "here")
    assert (receipt.claim, receipt.duplicates, receipt.job) == (None, [], WHOLE.job)


@pytest.mark.parametrize("known", [True, False, None])
def test_unknown_content_credentials_stay_unknown(known: bool | None) -> None:
    assert WHOLE.image is not None
    receipt = replace(WHOLE, image=replace(WHOLE.image, content_credentials=known))
    document = json.loads(receipt.to_json())
    assert document["image"].get("content_credentials", "absent") == ("absent" if known is None else known)
    assert read_receipt(receipt.to_json(), "here") == receipt
    odd = {**document, "image": {**document["image"], "content_credentials": "yes"}}
    read = read_receipt(json.dumps(odd), "here")
    assert read.image is not None and read.image.content_credentials is None


def test_only_a_receipt_with_an_image_names_its_digital_source_type() -> None:
    assert json.loads(WHOLE.to_json())["digital-source-type"] == "trainedAlgorithmicMedia"
    assert "digital-source-type" not in json.loads(Receipt("intent", "f00d").to_json())


@pytest.mark.parametrize(
    "field", ["state", "fingerprint", "run", "job", "image", "orphans", "version", "format", "duplicates"]
)
@pytest.mark.parametrize("value", [None, [7], 1.5, -1, {"x": 1}])
def test_corrupt_field_is_refused(field: str, value: Any) -> None:
    damaged = {**json.loads(WHOLE.to_json()), field: value}
    with pytest.raises(FluxReceiptError, match=r"^here"):
        read_receipt(json.dumps(damaged), "here")


@pytest.mark.parametrize("run", [{"dag_id": 1}, {"map_index": "3"}, {"run_id": ["run"]}])
def test_corrupt_run_is_refused(run: dict[str, Any]) -> None:
    whole = json.loads(WHOLE.to_json())
    with pytest.raises(FluxReceiptError, match="invalid run"):
        read_receipt(json.dumps({**whole, "run": {**whole["run"], **run}}), "here")
    with pytest.raises(FluxReceiptError, match="invalid job"):
        read_receipt(json.dumps({**whole, "job": [["id", "abc"]]}), "here")


def test_a_receipt_shows_no_secret_and_stays_small() -> None:
    asked = {
        "prompt": "https://kites.example/?of=red",
        "webhook_url": "https://hooks.example/services/T0/B1/s3cr3t",
        "input_image": "https://s3cr3t:s3cr3t@store.example:8443/x.png",
        "new_reference": "A" * 1_500_000,
        "nested": {"webhook_secret": "s3cr3t", "images": ["http://store.example/x.png?X-Amz-Signature=s3cr3t", 7]},
        "new_text": '{"signing_secret": "s3cr3t"}',
        "new_words": "see https://store.example/s3cr3t or ftp://s3cr3t@store.example",
    }
    shown = redact(asked)
    assert len(json.dumps(shown)) < 1000
    assert "s3cr3t" not in json.dumps(shown)
    assert shown["prompt"] == asked["prompt"]
    assert shown["nested"]["images"][0].startswith("http://store.example/...sha256:")
    assert shown["input_image"].startswith("https://store.example:8443/...sha256:")
    assert shown["webhook_url"].startswith("https://hooks.example/...sha256:")
    assert redact({"input_image": "https://store.example/y.png"}) != redact(
        {"input_image": "https://store.example/z.png"}
    )


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=9), inner, max_size=3),
    max_leaves=6,
)


@given(st.dictionaries(st.sampled_from(sorted(json.loads(WHOLE.to_json()))), junk))
def test_any_json_is_a_receipt_or_an_error(changes: dict[str, Any]) -> None:
    try:
        receipt = read_receipt(json.dumps({**json.loads(WHOLE.to_json()), **changes}), "here")
    except FluxError as error:
        assert str(error)
    else:
        assert receipt.state == "intent" or receipt.job is None or receipt.paid_job.id


@given(st.binary(max_size=60))
def test_any_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(FluxReceiptError):
        read_receipt(data, "here")
