"""The XCom that says why a task failed: small, without secrets, and never a reason to fail."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowSkipException, AirflowTaskTimeout
from airflow.sdk.execution_time.timeout import timeout

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.failures import FAILURE_KEY
from airflow_provider_flux.gallery.results import read_manifest
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
from tests.integration.running import context

PROMPT = "a secret pear"


def failure(folder: Path, expected: type[BaseException], **arguments: Any) -> dict[str, Any]:
    """Return what a task that fails says of it."""
    given: dict[str, Any] = {
        "model": "flux-dev",
        "prompt": PROMPT,
        "output_uri": f"file://{folder}/k.jpeg",
        "deferrable": False,
    }
    about = context()
    with pytest.raises(expected):
        FluxGenerateOperator(task_id="generate", **given | arguments).execute(about)
    record: dict[str, Any] = json.loads(json.dumps(about["ti"].pushed[FAILURE_KEY]))
    assert PROMPT not in json.dumps(record)
    return record


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_a_refused_request_is_free(flux: FluxEmulator, tmp_path: Path, policy: str) -> None:
    flux.fault(on="poll", status="Request Moderated")
    expected = AirflowSkipException if policy == "skip" else errors.FluxModeratedError
    record = failure(tmp_path, expected, on_moderated=policy)
    assert (record["state"], record["error"], record["cost"]) == ("moderated", "FluxModeratedError", 0)
    assert (record["model"], record["uri"]) == ("flux-dev", f"file://{tmp_path}/k.jpeg")


def test_withheld_images_may_all_be_billed(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.fault(on="poll", status="Content Moderated", times=None)
    record = failure(tmp_path, errors.FluxContentModeratedError, moderation_retries=1)
    assert (record["state"], record["cost"]) == ("moderated", 5)
    assert record["job_id"] == flux.stats()["jobs"][-1]["id"]


def test_an_invalid_request_is_free_and_names_no_job(flux: FluxEmulator, tmp_path: Path) -> None:
    record = failure(tmp_path, errors.FluxBadRequestError, width=17)
    assert (record["state"], record["cost"], record["job_id"]) == ("failed", 0, None)


def test_a_late_job_says_what_a_retry_does(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.settings(duration=60)
    record = failure(tmp_path, errors.FluxTimeoutError, timeout=0.3)
    assert (record["cost"], record["retry"]) == (2.5, "A retry resumes the same job and is not billed again.")


def test_an_execution_timeout_names_the_job(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.settings(duration=60)
    about = context()
    operator = FluxGenerateOperator(
        task_id="generate", model="flux-dev", prompt=PROMPT, output_uri=f"file://{tmp_path}/k.jpeg", deferrable=False
    )
    with pytest.raises(AirflowTaskTimeout), timeout(2):
        operator.execute(about)
    record = about["ti"].pushed[FAILURE_KEY]
    assert record["message"] == "The task reached its execution_timeout."
    (job,) = flux.stats()["jobs"]
    assert (record["job_id"], job["id"] in record["billing"]) == (job["id"], True)


def test_a_copy_that_fails_says_why(flux: FluxEmulator) -> None:
    about = context()
    with pytest.raises(errors.FluxBadRequestError):
        FluxToS3Operator(task_id="copy", generation={"no": "job"}, s3_key="s3://b/k.png").execute(about)
    assert about["ti"].pushed[FAILURE_KEY]["error"] == "FluxBadRequestError"


def test_a_batch_that_is_interrupted_pushes_what_it_has(flux: FluxEmulator, tmp_path: Path) -> None:
    flux.settings(duration=60)
    about = context()
    operator = FluxGenerateBatchOperator(
        task_id="batch", model="flux-dev", requests=["a pear", "a fig"], output_uri=f"file://{tmp_path}/"
    )
    with pytest.raises(AirflowTaskTimeout), timeout(4):
        operator.execute(about)
    result = about["ti"].pushed["return_value"]
    lines = read_manifest(Path(result["manifest"].removeprefix("file://")).read_bytes(), result["manifest"])
    assert result["counts"]["requested"] == len(lines) == 2
    assert about["ti"].pushed[FAILURE_KEY]["message"] == "The task reached its execution_timeout."


def test_an_unwritable_record_does_not_hide_the_error(flux: FluxEmulator, tmp_path: Path) -> None:
    def fail(**_: Any) -> None:
        raise OSError("no database")

    about = context()
    about["ti"].xcom_push = fail
    with pytest.raises(errors.FluxBadRequestError):
        FluxGenerateOperator(task_id="generate", model="flux-dev", prompt="x", width=17).execute(about)
