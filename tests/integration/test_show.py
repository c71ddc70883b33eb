"""FluxHook.read_image and presigned_url: stored images for people without a login, from a real S3 server and files."""

from __future__ import annotations

import hashlib
import time
from datetime import timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import requests

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.hooks import flux as flux_hook
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.results import ImageResult
from tests.integration.running import run
from tests.servers.seaweed import SeaweedFS

SMALL = {"width": 256, "height": 256}


def generate(uri: str | None, **arguments: Any) -> dict[str, Any]:
    asked = {"model": "flux-dev", "prompt": "a red kite", **SMALL, "output_uri": uri, **arguments}
    return run(FluxGenerateOperator(task_id="generate", **asked))[0]


def generate_batch(uri: str) -> dict[str, Any]:
    requests: list[Any] = [{"prompt": "a pear"}, {"prompt": "nsfw"}, {"prompt": "a fig"}]
    operator = FluxGenerateBatchOperator(
        task_id="generate",
        requests=requests,
        model="flux-dev",
        parameters=SMALL,
        output_uri=uri,
        on_moderated="skip",
    )
    return run(operator)[0]


def open_url(url: str) -> requests.Response:
    session = requests.Session()
    session.trust_env = False
    return session.get(url, timeout=20)


@pytest.fixture
def hook() -> FluxHook:
    """A hook whose connection does not exist: nothing here may ask the API."""
    return FluxHook("no_connection")


def test_image_in_s3_is_read_and_shown_without_a_login(flux: FluxEmulator, s3: SeaweedFS, hook: FluxHook) -> None:
    result = generate(f"s3://{s3.bucket}/a kite+50%.jpeg")
    data = hook.read_image(result)
    assert hashlib.sha256(data).hexdigest() == result["sha256"]
    assert hook.read_image([None, result], 1) == hook.read_image(ImageResult.from_dict(result)) == data
    shown = open_url(hook.presigned_url(result))
    assert (shown.content, shown.headers["Content-Type"]) == (data, "image/jpeg")


def test_images_of_a_batch_are_named_by_number_or_line(flux: FluxEmulator, s3: SeaweedFS, hook: FluxHook) -> None:
    batch = generate_batch(f"s3://{s3.bucket}/batch/")
    pear, fig = hook.read_image(batch, 0), hook.read_image(batch, {"index": 2})
    assert pear != fig
    assert open_url(hook.presigned_url(batch, number="2")).content == fig
    with pytest.raises(ValueError, match=r"Image 1 of the batch is not stored \(.*[Mm]oderated"):
        hook.read_image(batch, 1)
    with pytest.raises(ValueError, match="number must say which"):
        hook.presigned_url(batch)


def test_presigned_url_ends_when_it_should(flux: FluxEmulator, s3: SeaweedFS, hook: FluxHook) -> None:
    result = generate(f"s3://{s3.bucket}/kite.jpeg")
    for expires, seconds in ((90, "90"), ("90", "90"), (timedelta(days=7), "604800")):
        assert parse_qs(urlsplit(hook.presigned_url(result, expires)).query)["X-Amz-Expires"] == [seconds]
    assert parse_qs(urlsplit(hook.presigned_url(result)).query)["X-Amz-Expires"] == ["3600"]
    for expires, error in ((604_801, "7 days"), (timedelta(days=8), "7 days"), (0, "1 or more"), ("soon", "seconds")):
        with pytest.raises(ValueError, match=error):
            hook.presigned_url(result, expires)
    url = hook.presigned_url(result, 1)
    time.sleep(2.5)
    assert open_url(url).status_code == 403


def test_the_signature_is_masked_in_logs(
    flux: FluxEmulator, s3: SeaweedFS, hook: FluxHook, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    result = generate(f"s3://{s3.bucket}/kite.jpeg")
    masked: list[str] = []
    monkeypatch.setattr(flux_hook, "mask_secret", masked.append)
    url = hook.presigned_url(result)
    assert {urlsplit(url).query, *parse_qs(urlsplit(url).query)["X-Amz-Signature"]} <= set(masked)
    assert "X-Amz-Signature" not in caplog.text


def test_what_is_not_the_stored_image_any_more_is_an_error(flux: FluxEmulator, s3: SeaweedFS, hook: FluxHook) -> None:
    result = generate(f"s3://{s3.bucket}/kite.jpeg")
    s3.client().put_object(Bucket=s3.bucket, Key="kite.jpeg", Body=b"another image")
    with pytest.raises(errors.FluxBadImageError, match="SHA-256 differs"):
        hook.read_image(result)
    s3.client().delete_object(Bucket=s3.bucket, Key="kite.jpeg")
    for method in (hook.read_image, hook.presigned_url):
        with pytest.raises(errors.FluxBadImageError, match=r"kite.jpeg, the image of job \S+, does not exist"):
            method(result)
        with pytest.raises(errors.FluxStoreConfigurationError, match=r"cannot be read \(Unable to locate credentials"):
            method(result, aws_conn_id=None)


def test_local_file_is_read_and_has_no_presigned_url(flux: FluxEmulator, hook: FluxHook, tmp_path: Path) -> None:
    result, batch = generate(f"file://{tmp_path}/kite.jpeg"), generate_batch(f"file://{tmp_path}/batch/")
    assert hook.read_image(result) == (tmp_path / "kite.jpeg").read_bytes()
    assert hashlib.sha256(hook.read_image(batch, 2)).hexdigest()
    with pytest.raises(errors.FluxStoreConfigurationError, match=r"kite.jpeg cannot have a presigned URL"):
        hook.presigned_url(result)
    (tmp_path / urlsplit(batch["manifest"]).path).write_text('{"index": 0}')
    with pytest.raises(errors.FluxBadImageError, match=r"is not the batch's manifest any more"):
        hook.read_image(batch, 2)


@pytest.mark.parametrize("result", [None, "", [], "a job id", 7, {}, {"id": "job", "status": "Pending"}])
def test_what_names_no_stored_image_is_an_error(hook: FluxHook, result: Any) -> None:
    for method in (hook.read_image, hook.presigned_url):
        with pytest.raises(ValueError, match=r"skipped task|of type|is not stored"):
            method(result)
