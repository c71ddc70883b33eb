"""Submit, poll, account calls and errors: the responses of each API on its own paths."""

from __future__ import annotations

import httpx
import pytest

from .conftest import Api, message


def test_job_goes_from_pending_to_ready(api: Api) -> None:
    api.emulator.settings(duration=[0.15, 0.2])
    submitted = api.submit(seed=7)
    assert submitted.json()["cost"] == 2.5
    assert {"input_mp", "output_mp"} < submitted.json().keys()
    first = api.poll(submitted).json()
    assert first["status"] == "Pending"
    assert first["result"] is None
    assert 0 <= first["progress"] < 1
    assert first.keys() == {"id", "status", "result", "progress", "details", "preview"}

    api.emulator.settings(duration=0)
    result = api.result(seed=7)["result"]
    assert result.keys() == {"sample", "prompt", "seed", "start_time", "end_time", "duration"}
    assert (result["prompt"], result["seed"]) == ("a red kite", 7)
    assert result["end_time"] - result["start_time"] == result["duration"]


def test_cometapi_returns_the_upstream_polling_url(comet: Api) -> None:
    response = comet.submit().json()
    assert response["polling_url"] == f"https://api.eu2.bfl.ai/v1/get_result?id={response['id']}"


def test_bfl_job_is_known_only_on_its_cluster(bfl: Api) -> None:
    submitted = bfl.submit()
    url, job_id = submitted.json()["polling_url"], submitted.json()["id"]
    assert url == f"{bfl.emulator.url}/clusters/eu2/v1/get_result?id={job_id}"
    for wrong in (f"/v1/get_result?id={job_id}", f"/clusters/us1/v1/get_result?id={job_id}"):
        response = bfl.http.get(wrong)
        assert (response.status_code, response.json()["status"]) == (200, "Task not found")
    assert bfl.http.get(url).json()["status"] == "Ready"


def test_webhook_submit_has_no_polling_url_and_is_known_globally(bfl: Api) -> None:
    response = bfl.submit(webhook_url="https://example.com/hook", webhook_secret="hush").json()
    assert "polling_url" not in response
    assert response["webhook_url"] == "https://example.com/hook"
    assert response["status"] == "Pending"
    assert bfl.http.get("/v1/get_result", params={"id": response["id"]}).json()["status"] == "Ready"
    (job,) = bfl.emulator.stats()["jobs"]
    assert job["parameters"]["webhook_secret"] == "***"


def test_cometapi_does_not_know_a_job_of_bfl(comet: Api, bfl: Api) -> None:
    job_id = bfl.submit().json()["id"]
    response = comet.http.get("/flux/v1/get_result", params={"id": job_id})
    assert response.json()["status"] == "Task not found"


@pytest.mark.parametrize(
    "headers",
    [{}, {"Authorization": "emulator-key"}, {"Authorization": "Bearer wrong"}, {"x-key": "emulator-key"}],
)
@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/flux/v1/flux-dev"), ("GET", "/flux/v1/get_result?id=1"), ("GET", "/v1/models")],
)
def test_cometapi_rejects_a_request_without_a_bearer_key(
    comet: Api, method: str, path: str, headers: dict[str, str]
) -> None:
    response = httpx.request(method, comet.emulator.url + path, headers=headers, trust_env=False, verify=False)
    assert response.status_code == 401
    error = response.json()["error"]
    assert error["type"] == "comet_api_error"
    assert "(request id: " in error["message"]
    assert error.keys() == {"message", "type", "param", "code"}


@pytest.mark.parametrize("headers", [{}, {"x-key": "wrong"}, {"Authorization": "Bearer emulator-key"}])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/flux-dev"),
        ("GET", "/v1/get_result?id=1"),
        ("GET", "/clusters/eu2/v1/get_result?id=1"),
        ("GET", "/v1/credits"),
    ],
)
def test_bfl_rejects_a_request_without_an_x_key(bfl: Api, method: str, path: str, headers: dict[str, str]) -> None:
    response = httpx.request(method, bfl.emulator.url + path, headers=headers, trust_env=False, verify=False)
    assert response.status_code == 403
    reason = " - Invalid Authentication" if "x-key" in headers else ""
    assert response.json() == {"detail": f"Not authenticated{reason}"}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/flux-dev", 405),
        ("DELETE", "/v1/flux-tools/erase-v1", 405),
        ("POST", "/v1/get_result", 405),
        ("GET", "/v1/flux-9", 404),
        ("GET", "/v1/flux-pro", 404),
    ],
)
def test_bfl_rejects_a_wrong_method_before_it_reads_the_key(bfl: Api, method: str, path: str, status: int) -> None:
    response = httpx.request(method, bfl.emulator.url + path, trust_env=False, verify=False)
    assert response.status_code == status
    assert response.json() == {"detail": "Method Not Allowed" if status == 405 else "Not Found"}
    assert bfl.emulator.stats()["submit_requests"] == 0


def test_unknown_model_has_the_error_of_the_dialect(comet: Api, bfl: Api) -> None:
    response = comet.submit("flux-9")
    assert response.status_code == 503
    assert response.json()["error"]["code"] == "model_not_found"
    assert "no available channel" in message(response)
    response = bfl.submit("flux-9")
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


def test_unknown_id_is_not_found_and_missing_id_is_invalid(comet: Api, bfl: Api) -> None:
    for api in (comet, bfl):
        response = api.http.get(f"{api.prefix}/get_result", params={"id": "unknown"})
        assert (response.status_code, response.json()["status"]) == (200, "Task not found")
    response = bfl.http.get("/v1/get_result")
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == ["query", "id"]
    assert comet.http.get("/flux/v1/get_result").status_code == 400


def test_credits_and_model_lists(comet: Api, bfl: Api) -> None:
    assert bfl.http.get("/v1/credits").json() == {"credits": 10_000}
    catalogue = httpx.get(f"{comet.emulator.url}/api/models", trust_env=False, verify=False).json()
    assert catalogue["success"] is True
    assert {"id", "owned_by", "features", "endpoints", "pricing", "upcoming"} == catalogue["data"][0].keys()
    listed = comet.http.get("/v1/models").json()
    assert "flux-2-pro" in {row["id"] for row in listed["data"]}


@pytest.mark.parametrize("path", ["/", "/flux/v1", "/flux/v2/flux-dev", "/api/v1/x", "/docs"])
def test_mistyped_gateway_path_returns_a_web_page(comet: Api, path: str) -> None:
    response = comet.http.get(path)
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert comet.http.get("/flux/v1/flux-dev").text.startswith("<!doctype html>")


@pytest.mark.parametrize("path", ["/v1/nothing", "/delivery/x", "/emulator/x"])
def test_other_mistyped_path_returns_404(bfl: Api, path: str) -> None:
    response = bfl.http.get(path)
    assert (response.status_code, response.json()) == (404, {"detail": "Not Found"})


def test_flux_3_reports_its_cost_with_the_result(bfl: Api) -> None:
    assert bfl.submit("flux-3-image").json()["cost"] is None
    assert bfl.result("flux-3-image")["cost"] == 4.8
    assert bfl.result("flux-3-image", resolution="4k")["cost"] == 60.7
