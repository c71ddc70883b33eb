"""What FluxToS3Operator and the hook take for a job."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_flux.client.jobs import Job, job_from

TOLD = {"id": "abc-1", "model": "flux-dev", "polling_url": "https://api.bfl.ai/v1/get_result?id=abc-1", "cost": 4}


@pytest.mark.parametrize("value", [TOLD, str(TOLD), '{"id": "abc-1", "model": "flux-dev"}', " abc-1 ", Job("abc-1")])
def test_what_a_job_is_made_from(value: Any) -> None:
    assert job_from(value).id == "abc-1"


def test_a_dict_gives_all_that_is_known_of_the_job() -> None:
    job = job_from({**TOLD, "submitted_at": 12.5, "status": "Ready", "seed": 7})
    assert job == Job("abc-1", "flux-dev", TOLD["polling_url"], 4, 12.5)  # type: ignore[arg-type]
    assert job_from(job.to_dict()) == job
    assert job_from({"id": "a", "model": 7, "cost": "dear", "submitted_at": True}) == Job("a")


@pytest.mark.parametrize(
    ("value", "says"),
    [
        (None, "skipped"),
        ("", "skipped"),
        ("None", "skipped"),
        ([TOLD, TOLD], r"a list of 2 \(use .expand"),
        ({"model": "x"}, "without an 'id'"),
        ({"id": True}, "without an 'id'"),
        (7, "a int"),
        ("{broken", "neither"),
        ("two words", "neither"),
        ("../../x", "neither"),
    ],
)
def test_what_is_no_job(value: Any, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        job_from(value)
