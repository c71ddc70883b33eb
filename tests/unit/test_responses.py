"""Each response that the API is known to send, and what it becomes."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.client.api_response import ApiResponse
from airflow_provider_flux.client.catalogue.validation import unknown_fields
from airflow_provider_flux.client.gateways import make_endpoint
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.client.responses import JobState, read_refusal, read_result, read_submission

JOB = Job("abc", submitted_at=1000.0)
COMET, BFL = make_endpoint(None, "key"), make_endpoint(None, "key", "bfl")
HTML = b"<!doctype html><html><body>Welcome</body></html>"


def response(
    code: int, body: Any, content_type: str = "application/json", retry_after: float | None = None
) -> ApiResponse:
    return ApiResponse(code, body if isinstance(body, bytes) else json.dumps(body).encode(), content_type, retry_after)


def comet_error(message: str, code: str = "") -> dict[str, Any]:
    return {"error": {"message": message, "type": "comet_api_error", "param": "", "code": code}}


@pytest.mark.parametrize(
    ("code", "body", "state"),
    [
        (200, {"id": "abc", "status": "Pending", "result": None}, JobState.PENDING),
        (200, {"id": "abc", "status": "Reasoning"}, JobState.PENDING),
        (200, {"id": "abc", "status": "Task-Queued"}, JobState.PENDING),
        (200, {"id": "abc", "status": "An unknown word"}, JobState.PENDING),
        (503, {"status": "Pending"}, JobState.PENDING),
        (200, {"status": " ready ", "result": {"sample": "https://d.bfl.ai/x"}}, JobState.READY),
        (200, {"id": "abc", "status": "Ready", "result": {}}, JobState.READY),
        (200, {"code": "success", "data": {"status": "SUCCESS", "data": {"sample": "https://d/x"}}}, JobState.READY),
        (200, {"status": "succeeded", "output": ["https://d/x"]}, JobState.READY),
        (200, {"code": "success", "data": {"status": "IN_PROGRESS"}}, JobState.PENDING),
        (200, {"code": "success", "data": {"status": "FAILURE", "fail_reason": "no"}}, JobState.FAILED),
        (200, {"id": "abc", "status": "Request Moderated"}, JobState.MODERATED),
        (200, {"code": "success", "data": {"id": 4711, "task_id": "abc", "status": "FAILURE"}}, JobState.FAILED),
        (
            200,
            {"status": "Content Moderated", "details": {"Moderation Reasons": ["Violence"]}},
            JobState.CONTENT_MODERATED,
        ),
        (422, {"status": "Error", "details": {"error": "x"}}, JobState.FAILED),
        (503, {"status": "Error", "details": {"error": "x"}}, JobState.FAILED),
        (404, {"status": "Error", "id": "abc"}, JobState.FAILED),
        (429, {"status": "Error", "id": "abc"}, JobState.FAILED),
        (429, {"status": "Ready", "result": {"sample": "https://d/x"}}, JobState.READY),
        (200, {"id": "abc", "status": "Failed"}, JobState.FAILED),
        (200, {"id": "abc", "status": "Task not found"}, JobState.NOT_FOUND),
        (404, {"id": "abc", "status": "Task not found"}, JobState.NOT_FOUND),
        (404, {"detail": "Task not found"}, JobState.NOT_FOUND),
        (404, comet_error("Task not found (request id: 2026)"), JobState.NOT_FOUND),
    ],
)
def test_status_counts_before_the_http_status_code(code: int, body: Any, state: JobState) -> None:
    assert read_result(response(code, body), JOB).state is state


@pytest.mark.parametrize(
    ("code", "body", "error", "text"),
    [
        (400, comet_error("bad seed (request id: 7)", "invalid_request"), errors.FluxBadRequestError, "request id: 7"),
        (401, comet_error("no such key"), errors.FluxAuthenticationError, "HTTP 401: no such key"),
        (402, comet_error("no credits"), errors.FluxCreditsError, "no credits left"),
        (403, {"detail": "Not authenticated"}, errors.FluxAuthenticationError, "Not authenticated"),
        (
            422,
            {"detail": [{"loc": ["body", "width"], "msg": "must be less", "input": "SECRET PROMPT"}]},
            errors.FluxBadRequestError,
            "width: must be less",
        ),
        (429, {"detail": "too many"}, errors.FluxRateLimitError, "limit of active jobs"),
        (500, comet_error("malformed", "invalid_request"), errors.FluxBadRequestError, "malformed"),
        (500, {"detail": "boom"}, errors.FluxServiceError, "HTTP 500: boom"),
        (502, HTML, errors.FluxServiceError, "HTTP 502"),
        (500, {"status": "error", "message": "upstream unavailable"}, errors.FluxServiceError, "upstream unavailable"),
        (503, comet_error("no available channel", "model_not_found"), errors.FluxBadRequestError, "no available"),
        (504, b"", errors.FluxServiceError, "HTTP 504"),
        (524, b"", errors.FluxServiceError, "HTTP 524"),
        (200, HTML, errors.FluxConfigurationError, "a web page"),
        (301, b"", errors.FluxConfigurationError, "a redirect"),
        (200, b"", errors.FluxServiceError, "an empty response"),
        (200, {"hello": 1}, errors.FluxServiceError, "without a status"),
        (200, {"status": None}, errors.FluxServiceError, "without a status"),
        (429, {"status": "error", "message": "slow down"}, errors.FluxRateLimitError, "slow down"),
        (401, {"status": "error", "message": "no such key"}, errors.FluxAuthenticationError, "no such key"),
        (403, {"data": {"status": "failed"}}, errors.FluxAuthenticationError, "HTTP 403"),
        (402, {"status": "error"}, errors.FluxCreditsError, "no credits left"),
        (502, {"status": "error"}, errors.FluxServiceError, "HTTP 502"),
    ],
)
def test_response_that_is_not_about_the_job_is_a_failed_poll(code: int, body: Any, error: type, text: str) -> None:
    """Whatever it says: only a submit, or the probe of a connection, is refused by it."""
    refused = response(code, body)
    with pytest.raises(errors.FluxServiceError, match=text) as caught:
        read_result(refused, JOB)
    assert type(caught.value) is errors.FluxServiceError
    assert caught.value.job_id == "abc"
    refusal = read_refusal(refused)
    assert type(refusal) is error
    assert "SECRET" not in f"{caught.value} {refusal}"


@pytest.mark.parametrize("code", [200, 202, 400, 401, 402, 403, 404, 409, 413, 422, 429, 500, 502, 503, 524])
@pytest.mark.parametrize(
    "body",
    [
        {"status": "error", "message": "busy"},
        {"status": "Error"},
        {"status": "Request Moderated"},
        {"status": "Ready"},
        {"status": "Ready", "result": {}},
        {"status": "", "details": "x"},
        {"id": "another", "status": "Error", "details": {"error": "x"}},
        {"id": "another", "status": "Ready", "result": {"sample": "https://d/x"}},
        {"id": "another", "status": "Task not found"},
        {"detail": "Not Found"},
        {"message": "no Route matched with those values"},
        {"detail": "Task not found on this node, retry"},
        HTML,
        b"",
    ],
)
def test_response_that_is_not_about_the_job_is_a_failed_poll_with_any_http_status_code(code: int, body: Any) -> None:
    with pytest.raises(errors.FluxServiceError):
        read_result(response(code, body), JOB)


BLOCKED = b"""<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title>
<style>body{color:red}</style></head><body><script>var s3cret = 1;</script><h1>Sorry, you have been blocked</h1>"""


@pytest.mark.parametrize(
    ("code", "body", "error", "text"),
    [
        (
            403,
            comet_error("user quota is not enough", "insufficient_user_quota"),
            errors.FluxCreditsError,
            "quota is not",
        ),
        (403, {"code": "insufficient_user_quota", "message": "no"}, errors.FluxCreditsError, "HTTP 403: no"),
        (403, {"error": {"message": "Insufficient user quota"}}, errors.FluxCreditsError, "Insufficient user quota"),
        (429, comet_error("see your plan", "insufficient_quota"), errors.FluxCreditsError, "see your plan"),
        (429, {"error": {"type": "insufficient_quota"}}, errors.FluxCreditsError, "insufficient_quota"),
        (429, {"data": {"error": {"code": "insufficient_quota"}}}, errors.FluxCreditsError, "insufficient_quota"),
        (429, b"insufficient_quota", errors.FluxCreditsError, "HTTP 429: insufficient_quota"),
        (500, comet_error("no", "insufficient_user_quota"), errors.FluxCreditsError, "no"),
        (403, comet_error("no", "insufficient_scope"), errors.FluxAuthenticationError, "insufficient_scope"),
        (429, comet_error("too many requests", "rate_limit"), errors.FluxRateLimitError, "too many"),
        (403, b"error code: 1010", errors.FluxServiceError, r"key was not checked \(HTTP 403: error code: 1010\)"),
        (403, {"cloudflare_error": True, "title": "Error 1010"}, errors.FluxServiceError, "HTTP 403: Error 1010"),
        (403, BLOCKED, errors.FluxServiceError, "Attention Required! | Cloudflare Sorry, you have been blocked"),
        (401, BLOCKED, errors.FluxServiceError, "Sorry, you have been blocked"),
        (403, b"Forbidden by policy", errors.FluxServiceError, "HTTP 403: Forbidden by policy"),
        (401, b"Unauthorized", errors.FluxAuthenticationError, "HTTP 401: Unauthorized"),
        (403, b"", errors.FluxAuthenticationError, "HTTP 403"),
    ],
)
def test_refused_submit_names_who_refused_it_and_why(code: int, body: Any, error: type, text: str) -> None:
    with pytest.raises(error, match=text) as caught:
        read_submission(response(code, body), "flux-dev", COMET, 5.0)
    assert type(caught.value) is error
    assert "s3cret" not in str(caught.value)
    with pytest.raises(errors.FluxServiceError, match=text):
        read_result(response(code, body, "text/html" if body == BLOCKED else "application/json"), JOB)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"upstream is down\n\n", "upstream is down"),
        ('"busy"', "busy"),
        ({"message": "slow"}, "slow"),
        ({"msg": "slow"}, "slow"),
        ({"Message": "slow"}, "slow"),
        ({"error": "Bad Gateway", "message": "slow"}, "slow; Bad Gateway"),
        ({"error": {"msg": "slow", "code": "x1"}}, "slow (x1)"),
        ({"code": 500, "message": "", "data": {"message": "slow"}}, "slow"),
        ({"errors": [{"message": "slow"}, {"message": "busy"}]}, "slow; busy"),
        ({"errors": {"width": ["too large"]}}, "width: too large"),
        ({"detail": {"error": "slow", "input": "SECRET"}}, "slow"),
        ({"detail": {"prompt": "SECRET", "code": "slow"}}, "code: slow"),
        ({"detail": [{"loc": ["body", "w"], "msg": "no", "input": "SECRET", "ctx": {"a": "SECRET"}}]}, "w: no"),
        ({"data": {"prompt": "SECRET", "sample": "https://d/x?sig=SECRET"}}, ""),
        ({"detail": "see https://d.example/x?sig=SECRET now"}, "see https://d.example/x?... now"),
        (b'{"id": "abc", "result": {"sample": "https://d/x?sig=SECRET", "pro', ""),
        (b"\x89PNG\r\n\x1a\n\0\0SECRET", ""),
        (b"<html><title>502 Bad Gateway</title><!-- SECRET --><hr>nginx</html>", "502 Bad Gateway nginx"),
        ({"message": "a\n\tb\x1b[31m  c"}, "a b [31m c"),
    ],
)
def test_error_quotes_only_the_api_s_message(body: Any, text: str) -> None:
    content = body.encode() if isinstance(body, str) else body
    with pytest.raises(errors.FluxServiceError) as caught:
        read_result(response(500, content), JOB)
    assert caught.value.message.endswith(f"(HTTP 500: {text})." if text else "(HTTP 500).")
    assert "SECRET" not in str(caught.value)


@pytest.mark.parametrize("body", [{"detail": "x" * 9999}, b"x " * 9999, b"<p>" + b"x" * 99_999])
def test_quoted_message_is_bounded(body: Any) -> None:
    with pytest.raises(errors.FluxServiceError) as caught:
        read_result(response(500, body), JOB)
    assert len(str(caught.value)) < 800


@pytest.mark.parametrize(
    ("code", "body"),
    [
        (404, comet_error("Invalid URL (POST /flux/v1/flux-pro-1.2)")),
        (503, comet_error("no available channel", "model_not_found")),
        (400, {"error": {"message": "unknown model", "code": "model_not_found"}}),
        (422, {"detail": "no such model"}),
        (405, b"Method Not Allowed"),
    ],
)
def test_error_for_a_mistyped_model_names_the_likely_one(code: int, body: Any) -> None:
    message = body.decode() if isinstance(body, bytes) else (body.get("detail") or body["error"]["message"])
    with pytest.raises(errors.FluxBadRequestError) as caught:
        read_submission(response(code, body), "flux-pro-1.2", COMET, 5.0)
    assert message in str(caught.value)
    if code != 405:
        assert unknown_fields("flux-pro-1.2", ())[0][1:] in str(caught.value)
        assert "did you mean flux-pro-1.1?" in str(caught.value)


def test_error_for_a_known_model_names_the_address() -> None:
    body = comet_error("Invalid URL (POST /x/flux/v1/flux-dev)")
    endpoint = make_endpoint("https://own.example/x", "key")
    with pytest.raises(
        errors.FluxBadRequestError, match=r"Invalid URL \(POST .*request went to https://own\.example/x"
    ):
        read_submission(response(404, body), "flux-dev", endpoint, 5.0)
    with pytest.raises(errors.FluxConfigurationError, match="HTTP 404: Welcome"):
        read_submission(response(404, HTML), "flux-dev", endpoint, 5.0)


def test_result_has_the_api_s_values_and_hides_the_url() -> None:
    body: dict[str, Any] = {
        "status": "Ready",
        "cost": 4,
        "result": {"sample": "https://d.bfl.ai/x?sig=s3cret", "seed": 7, "duration": 1.5, "prompt": "hush"},
    }
    result = read_result(response(200, body), JOB)
    assert (result.sample, result.seed, result.cost, result.duration) == (body["result"]["sample"], 7, 4, 1.5)
    assert "s3cret" not in repr(result)
    assert "hush" not in repr(result)


def test_moderation_reasons_are_listed_as_text() -> None:
    listed = {"id": "abc", "status": "Request Moderated", "details": {"Moderation Reasons": ["Violence", "Gore"]}}
    assert read_result(response(200, listed), JOB).reason == "Moderation Reasons: Violence, Gore"
    assert read_result(response(200, {**listed, "details": "plain text"}), JOB).reason == "plain text"


def test_submission_keeps_the_polling_url_only_for_the_gateway_that_requires_it() -> None:
    body = {"id": "j1", "polling_url": "https://api.eu2.bfl.ai/v1/get_result?id=j1", "cost": 4.0}
    assert read_submission(response(200, body), "flux-dev", COMET, 5.0) == Job("j1", "flux-dev", None, 4.0, 5.0)
    assert read_submission(response(200, body), "flux-dev", BFL, 5.0).polling_url == body["polling_url"]
    image = {**body, "polling_url": "https://delivery.eu2.bfl.ai/x/sample.png?sig=1"}
    assert read_submission(response(200, image), "flux-dev", BFL, 5.0).polling_url is None


@pytest.mark.parametrize(
    ("code", "body", "error"),
    [
        (404, {"detail": "Not Found"}, errors.FluxBadRequestError),
        (405, {"detail": "Method Not Allowed"}, errors.FluxBadRequestError),
        (503, {"detail": "overloaded"}, errors.FluxServiceError),
        (500, {"detail": "boom"}, errors.FluxUncertainSubmitError),
        (524, HTML, errors.FluxUncertainSubmitError),
        (200, b"", errors.FluxUncertainSubmitError),
        (200, {"id": ""}, errors.FluxUncertainSubmitError),
        (200, {"id": " \t"}, errors.FluxUncertainSubmitError),
        (200, {"id": True}, errors.FluxUncertainSubmitError),
        (201, b'{"id": "abc', errors.FluxUncertainSubmitError),
        (200, b"\x89PNG\r\n", errors.FluxUncertainSubmitError),
        (200, b"[" * 100_000, errors.FluxUncertainSubmitError),
        (429, {"status": "error", "id": "req-7"}, errors.FluxRateLimitError),
        (200, HTML, errors.FluxConfigurationError),
    ],
)
def test_submission_without_id_says_whether_it_may_have_been_accepted(code: int, body: Any, error: type) -> None:
    with pytest.raises(errors.FluxError) as caught:
        read_submission(response(code, body), "flux-dev", COMET, 5.0)
    assert type(caught.value) is error
    is_uncertain = "one image may have been billed" in str(caught.value)
    assert is_uncertain is (error is errors.FluxUncertainSubmitError)


def test_job_id_is_found_in_any_field_and_escaped_in_the_url() -> None:
    for body in (
        {"id": "a/b?c#d é&x=1"},
        {"data": {"task_id": " a/b?c#d é&x=1\n"}},
        {"id": "a/b?c#d é&x=1", "data": {}},
    ):
        job = read_submission(response(200, body), "flux-dev", COMET, 5.0)
        assert COMET.result_url(job).endswith("/get_result?id=a%2Fb%3Fc%23d%20%C3%A9%26x%3D1")
    assert read_submission(response(200, {"id": 12}), "flux-dev", COMET, 5.0).id == "12"


def test_lone_surrogate_breaks_neither_the_job_nor_its_image() -> None:
    job = read_submission(response(200, {"id": "abc\ud83d"}), "flux-dev", BFL, 5.0)
    assert BFL.result_url(job).endswith("?id=abc%3F")
    cut = {"status": "Ready", "result": {"sample": "https://d/x", "prompt": "a kite \ud83d"}}
    assert read_result(response(200, cut), JOB).sample == "https://d/x"


@pytest.mark.parametrize("place", [b'{"status": "Error", "details": @}', b'{"detail": [{"loc": @, "msg": @}]}'])
def test_deep_nesting_raises_no_recursion_error(place: bytes) -> None:
    for depth in range(800, 1000):
        with contextlib.suppress(errors.FluxError):
            read_result(response(400, place.replace(b"@", b"[" * depth + b"]" * depth)), JOB)


@pytest.mark.parametrize("code", [400, 404, 409, 500, 503])
def test_gateway_error_with_details_as_text_is_a_failed_poll(code: int) -> None:
    for body in ({"status": "error", "details": "upstream busy"}, {"status": "failed", "result": {"code": 500}}):
        with pytest.raises(errors.FluxServiceError):
            read_result(response(code, body), JOB)
    assert read_result(response(code, {"status": "Error", "details": {"error": "x"}}), JOB).state is JobState.FAILED
