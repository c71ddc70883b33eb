"""The values that FluxToS3Operator and the hook accept as a job."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_flux.client.jobs import Job, job_from

RESULT = {"id": "abc-1", "model": "flux-dev", "polling_url": "https://api.bfl.ai/v1/get_result?id=abc-1", "cost": 4}


@pytest.mark.parametrize(
    "value", [RESULT, str(RESULT), '{"id": "abc-1", "model": "flux-dev"}', " abc-1 ", Job("abc-1")]
)
def test_value_is_accepted_as_a_job(value: Any) -> None:
    assert job_from(value).id == "abc-1"


def test_dict_keeps_every_valid_field_of_the_job() -> None:
    job = job_from({**RESULT, "submitted_at": 12.5, "status": "Ready", "seed": 7})
    assert job == Job("abc-1", "flux-dev", RESULT["polling_url"], 4, 12.5)  # type: ignore[arg-type]
    assert job_from(job.to_dict()) == job
    assert job_from({"id": "a", "model": 7, "cost": "high", "submitted_at": True}) == Job("a")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "skipped"),
        ("", "skipped"),
        ("None", "skipped"),
        ([RESULT, RESULT], r"a list of 2 \(use .expand"),
        ({"model": "x"}, "without an 'id'"),
        ({"id": True}, "without an 'id'"),
        (7, "type int"),
        ("{broken", "neither"),
        ("two words", "neither"),
        ("../../x", "neither"),
    ],
)
def test_other_value_is_refused_and_described(value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        job_from(value)
