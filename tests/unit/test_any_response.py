"""Any response of a server, and any event of a trigger, becomes a result or an error that names the job."""

from __future__ import annotations

import json
import logging
import time
from typing import Any

import httpx
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_flux.client.api_response import ApiResponse
from airflow_provider_flux.client.gateways import make_endpoint
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.polling import Poller
from airflow_provider_flux.client.responses import Result, read_result, read_submission
from airflow_provider_flux.exceptions import FluxError, job_context
from airflow_provider_flux.execution.deferral import read_event, resumed_timeout

log = logging.getLogger(__name__)
JOB = Job("abc-1", submitted_at=0.0)
ENDPOINTS = [make_endpoint(None, "the-api-key"), make_endpoint(None, "the-api-key", "bfl")]
WORDS = ["Ready", "SUCCESS", "succeeded", "Pending", "Error", "failed", "Content Moderated", "Task not found"]
NAMES = ["id", "task_id", "status", "result", "data", "sample", "seed", "output", "details", "error", "detail"]
NAMES += ["loc", "msg", "message", "code", "cost", "duration", "polling_url", "fail_reason"]
EVENT = ["id", "error", "what", "job_id", "money", "deadline", "uri", "width", "height", "format", "bytes"]
EVENT += ["waited", "triggerer", "polls"]
URLS = ["https://delivery.bfl.ai/x.png?sig=1", "https://api.bfl.ai/v1/get_result?id=1", "", " "]
DATES = ["Wed, 21 Oct 2099 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:28:00 +9999999999999"]

# characters() includes lone surrogates, such as "\ud83d" in JSON.
texts = st.text(st.characters(), max_size=9)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts | st.sampled_from([*WORDS, *URLS])
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(NAMES) | texts, inner, max_size=5)
        | st.fixed_dictionaries({"status": st.sampled_from(WORDS) | texts}, optional={"result": inner, "data": inner})
    ),
    max_leaves=12,
)
deep = st.integers(100, 3000).map(lambda depth: b"[" * depth + b"1" + b"]" * depth)
PLACES = ["@", '{"status":"Error","details":@}', '{"status":"Error","details":{"a":[@]}}', '{"error":@}', '{"id":@}']
PLACES += ['{"detail":[{"loc":@,"msg":@}]}', '{"detail":[@]}', '{"status":"Ready","result":@,"output":@}']
nested = st.builds(lambda place, inner: place.encode().replace(b"@", inner), st.sampled_from(PLACES), deep)
bodies = values.map(lambda value: json.dumps(value).encode()) | nested | st.binary(max_size=40)
after = st.sampled_from([*DATES, "nan", "inf", "-1", "1e999", "9" * 5000]) | st.text("0123456789 .:+-,a", max_size=9)
responses = st.builds(
    lambda code, body, kind, after: ApiResponse.from_http(
        code, httpx.Headers({"content-type": kind, "retry-after": after}), body, "the-api-key"
    ),
    st.integers(100, 599),
    bodies,
    st.sampled_from(["application/json", "text/html", "", "image/png", "application/json; charset=nonsense"]),
    after,
)


@given(st.lists(responses, min_size=1, max_size=6), st.floats(0, 600), st.sampled_from([None, 0.1, 5.0]))
def test_any_responses_end_the_wait_with_a_url_or_an_error_that_names_the_job(
    received: list[ApiResponse], deadline: float, interval: float | None
) -> None:
    poller, now, finished = Poller(JOB, deadline, interval, 0.0), 0.0, None
    try:
        while finished is None:
            assert poller.polls < deadline / 0.1 + 3
            response: Result | FluxError
            try:
                with job_context(JOB.id):
                    response = read_result(received[poller.polls % len(received)], JOB)
            except FluxError as error:
                assert error.job_id == JOB.id
                response = error
            assert now <= deadline + 1e-6
            finished = poller.on_response(response, now)
            if finished is None:
                wait = poller.delay(now)
                assert wait > 0
                now += wait
    except FluxError as error:
        assert error.job_id == JOB.id
        assert JOB.id in error.message
        str(error).encode()
    else:
        assert finished.sample
        finished.sample.encode()


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=["cometapi", "bfl"])
@given(response=responses)
def test_any_response_to_a_submit_is_a_job_that_can_be_polled_or_an_error(endpoint: Any, response: ApiResponse) -> None:
    try:
        job = read_submission(response, "flux-dev", endpoint, 5.0)
    except FluxError as error:
        str(error).encode()
    else:
        assert job.id.strip()
        httpx.URL(endpoint.result_url(job))
        json.dumps(job.to_dict(), ensure_ascii=False).encode()


@given(
    values
    | st.fixed_dictionaries(
        {"outcome": st.sampled_from(["stored", "ready", "failed", "gave up"])},
        optional=dict.fromkeys(EVENT, scalars | st.lists(scalars, max_size=2)),
    )
)
@example({"outcome": "ready", "id": "abc-1", "deadline": 10**400})
def test_any_event_of_a_trigger_is_a_job_or_an_error(event: Any) -> None:
    try:
        waited = read_event(event, log)
    except FluxError as error:
        assert str(error)
    else:
        assert waited.job.id.strip()
        assert 5 <= resumed_timeout(waited) < float("inf")
        assert waited.image is None or waited.image.is_stored


def test_event_limits_how_long_the_worker_may_still_wait() -> None:
    waited = read_event({"outcome": "ready", "id": "abc-1", "deadline": time.time() + 1000}, log)
    assert 900 < resumed_timeout(waited) <= 1000
