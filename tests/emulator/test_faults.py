"""The effect of each fault, and the requests that it applies to."""

from __future__ import annotations

import io
import time
from typing import Any

import httpx
import pytest
from PIL import Image

from .conftest import Api, fetch, message


def test_http_error_has_the_body_of_the_dialect(comet: Api, bfl: Api) -> None:
    comet.emulator.fault(on="submit", http=429, headers={"Retry-After": "3"}, times=2)
    response = comet.submit()
    assert (response.status_code, response.headers["retry-after"]) == (429, "3")
    assert response.json()["error"]["code"] == "rate_limit_exceeded"
    assert bfl.submit().json() == {"detail": "Too many active tasks"}
    assert bfl.submit().status_code == 200

    bfl.emulator.fault(on="any", http=422, times=None)
    assert bfl.submit().json()["detail"][0]["loc"] == ["body"]
    assert bfl.http.get("/v1/credits").status_code == 422
    assert comet.http.get("/api/models").status_code == 422
    assert bfl.emulator.stats()["submits"] == 1


@pytest.mark.parametrize(
    ("fault", "code", "content_type", "text"),
    [
        ({"json": {"a": 1}}, 200, "application/json", '{"a":1}'),
        ({"json": None, "http": 500}, 500, "application/json", "null"),
        ({"text": ""}, 200, "text/plain; charset=utf-8", ""),
        ({"html": "<p>hello"}, 200, "text/html; charset=utf-8", "<p>hello"),
        ({"html": "<p>bad gateway", "http": 502}, 502, "text/html; charset=utf-8", "<p>bad gateway"),
    ],
)
def test_body_replaces_the_response(api: Api, fault: dict[str, Any], code: int, content_type: str, text: str) -> None:
    api.emulator.fault(on="submit", **fault)
    response = api.submit()
    assert (response.status_code, response.headers["content-type"], response.text) == (code, content_type, text)


def test_empty_response_and_redirect(api: Api) -> None:
    api.emulator.fault(on="submit", http=204)
    assert (api.submit().status_code, api.emulator.stats()["submits"]) == (204, 0)
    api.emulator.fault(on="poll", redirect="https://example.com/")
    response = api.poll(api.submit())
    assert (response.status_code, response.headers["location"]) == (302, "https://example.com/")


def test_accept_creates_the_job_before_the_fault(api: Api) -> None:
    for accept, jobs in ((False, 0), (True, 1)):
        api.emulator.fault(on="submit", drop=True, accept=accept)
        with pytest.raises(httpx.RemoteProtocolError):
            api.submit()
        assert api.emulator.stats()["submits"] == jobs
    api.emulator.fault(on="submit", http=504, accept=True)
    assert api.submit().status_code == 504
    assert api.emulator.stats()["submits"] == 2


def test_delayed_response(api: Api) -> None:
    api.emulator.fault(on="submit", delay=1, accept=True)
    with pytest.raises(httpx.ReadTimeout):
        api.http.post(f"{api.prefix}/flux-dev", json={"prompt": "x"}, timeout=0.2)
    assert api.emulator.stats()["submits"] == 1
    api.emulator.fault(on="submit", delay=0.01)
    assert api.submit().status_code == 200


def test_outage_ends_after_its_seconds(api: Api) -> None:
    api.emulator.fault(on="any", http=503, seconds=0.3)
    while api.submit().status_code == 503:
        time.sleep(0.02)
    (fault,) = httpx.get(f"{api.emulator.url}/emulator/faults", trust_env=False, verify=False).json()
    assert fault["hits"] > 1
    assert fault["active"] is False


def test_fault_applies_only_to_selected_requests(api: Api) -> None:
    api.emulator.fault(on="submit", http=500, after=1, times=2, match="kite")
    api.emulator.fault(on="submit", http=502, match="flux-2")
    prompts = ["a dog", "a kite", "a dog", "a kite", "a kite", "a kite"]
    assert [api.submit(prompt=prompt).status_code for prompt in prompts] == [200, 200, 200, 500, 500, 200]
    assert [api.submit("flux-2-pro").status_code for _ in range(2)] == [502, 200]
    assert api.http.post(f"{api.prefix}/flux-dev", content=b"[]").status_code >= 400


@pytest.mark.parametrize("word", ["Error", "Failed", "Queued", "Request Moderated", "a new word"])
def test_status_and_details_replace_those_of_the_job(api: Api, word: str) -> None:
    submitted = api.submit()
    api.emulator.fault(on="poll", status=word, details={"why": "because"})
    response = api.poll(submitted).json()
    assert (response["status"], response["details"], response["result"]) == (word, {"why": "because"}, None)
    assert api.poll(submitted).json()["status"] == "Ready"


def test_status_can_have_an_http_error_code(api: Api) -> None:
    submitted = api.submit()
    api.emulator.fault(on="poll", status="Task not found", http=404)
    response = api.poll(submitted)
    assert (response.status_code, response.json()["status"]) == (404, "Task not found")
    api.emulator.fault(on="poll", status="Error", http=503)
    assert api.poll(submitted).status_code == 503
    api.emulator.fault(on="poll", status="Task not found", http=404)
    response = api.http.get(f"{api.prefix}/get_result", params={"id": "unknown"})
    assert (response.status_code, response.json()["id"]) == (404, "unknown")


def test_sample_is_replaced_or_removed(api: Api) -> None:
    submitted = api.submit()
    for given in (None, "", "http://10.0.0.1/secret"):
        api.emulator.fault(on="poll", sample=given)
        result = api.poll(submitted).json()["result"]
        assert result.get("sample", "missing") == (given or "missing")


def test_sample_fault_waits_until_the_job_is_ready(api: Api) -> None:
    api.emulator.settings(duration=0.1)
    api.emulator.fault(on="poll", sample=None)
    assert "sample" not in api.result()["result"]


def test_ready_status_of_an_unfinished_job_has_no_result(api: Api) -> None:
    api.emulator.settings(duration=60)
    api.emulator.fault(on="poll", status="Ready")
    response = api.result()
    assert (response["status"], response["result"]) == ("Ready", None)


def test_polling_url_is_replaced_or_removed(api: Api) -> None:
    for given in (None, "", "https://evil.example/"):
        api.emulator.fault(on="submit", polling_url=given)
        assert api.submit().json().get("polling_url", "missing") == (given or "missing")


def test_wrapped_shape(api: Api) -> None:
    submitted = api.submit()
    api.emulator.fault(on="poll", shape="wrapped")
    response = api.poll(submitted).json()
    assert response["code"] == "success"
    assert response["data"]["status"] == "SUCCESS"
    assert response["data"]["data"]["sample"].startswith(api.emulator.url)
    assert api.poll(submitted).json()["status"] == "Ready"

    api.emulator.settings(shape="wrapped", duration=60)
    assert api.poll(api.submit()).json()["data"]["status"] == "IN_PROGRESS"
    refused = api.poll(api.submit(prompt="nsfw")).json()["data"]
    assert refused["status"] == "FAILURE"
    assert "Request Moderated" in refused["fail_reason"]


def test_replicate_shape(api: Api) -> None:
    api.emulator.settings(shape="replicate")
    response = api.poll(api.submit()).json()
    assert response["status"] == "succeeded"
    assert response["output"][0].startswith(api.emulator.url)
    api.emulator.settings(duration=60)
    response = api.poll(api.submit()).json()
    assert (response["status"], response["output"]) == ("processing", None)
    assert "Request Moderated" in api.poll(api.submit(prompt="nsfw")).json()["error"]


def test_truncated_image(bfl: Api) -> None:
    link = bfl.link()
    whole = fetch(link).content
    bfl.emulator.fault(on="download", truncate=0.5)
    cut = fetch(link)
    assert cut.content == whole[: len(whole) // 2]
    assert int(cut.headers["content-length"]) == len(cut.content)
    with pytest.raises(OSError, match="truncated"):
        Image.open(io.BytesIO(cut.content)).load()

    bfl.emulator.fault(on="download", truncate=0.5, lie=True)
    received = b""
    with httpx.stream("GET", link, trust_env=False, verify=False) as response:
        assert int(response.headers["content-length"]) == len(whole)
        with pytest.raises(httpx.RemoteProtocolError):
            for chunk in response.iter_raw():
                received += chunk
    assert received == whole[: len(whole) // 2]

    bfl.emulator.fault(on="download", truncate=0)
    assert fetch(link).content == b""
    assert bfl.emulator.stats()["downloads"] == 1
    assert bfl.emulator.stats()["jobs"][0]["downloads"] == 1


def test_padded_and_slow_downloads_count_as_complete(bfl: Api) -> None:
    link = bfl.link()
    whole = fetch(link).content
    bfl.emulator.fault(on="download", pad=10)
    assert fetch(link).content == whole + bytes(10)
    bfl.emulator.fault(on="download", drip=0.001)
    assert fetch(link).content == whole
    assert bfl.emulator.stats()["downloads"] == 3


def test_aborted_download_is_not_counted(bfl: Api) -> None:
    link = bfl.link()
    bfl.emulator.fault(on="download", drip=0.05)
    with httpx.stream("GET", link, trust_env=False, verify=False) as response:
        next(response.iter_raw())
    time.sleep(0.6)
    assert bfl.emulator.stats()["downloads"] == 0


def test_body_or_error_replaces_the_image(bfl: Api) -> None:
    link = bfl.link()
    bfl.emulator.fault(on="download", body="<html>", content_type="text/html")
    response = fetch(link)
    assert (response.status_code, response.text) == (200, "<html>")
    assert response.headers["content-type"].startswith("text/html")
    bfl.emulator.fault(on="download", body="no image")
    assert fetch(link).headers["content-type"] == "image/png"
    bfl.emulator.fault(on="download", http=503)
    response = fetch(link)
    assert (response.status_code, response.headers["content-type"]) == (503, "application/xml")
    bfl.emulator.fault(on="download", drop=True)
    with pytest.raises(httpx.RemoteProtocolError):
        fetch(link)
    assert bfl.emulator.stats()["downloads"] == 0


def test_faults_are_deleted_by_clear_faults_and_reset(api: Api) -> None:
    for delete in (api.emulator.clear_faults, api.emulator.reset):
        api.emulator.fault(on="any", http=500, times=None)
        assert api.submit().status_code == 500
        delete()
        assert api.submit().status_code == 200


def test_unusual_error_code_has_a_generic_message(comet: Api) -> None:
    comet.emulator.fault(on="submit", http=524)
    assert message(comet.submit()).startswith("Upstream service error")
