"""Each way to misbehave, and which requests it hits."""

from __future__ import annotations

import io
import time
from typing import Any

import httpx
import pytest
from PIL import Image

from .conftest import Api, message
from .test_delivery import fetch


def test_the_http_errors_have_the_body_of_the_dialect(comet: Api, bfl: Api) -> None:
    comet.emulator.fault(on="submit", http=429, headers={"Retry-After": "3"}, times=2)
    answer = comet.submit()
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "3")
    assert answer.json()["error"]["code"] == "rate_limit_exceeded"
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
def test_any_body(api: Api, fault: dict[str, Any], code: int, content_type: str, text: str) -> None:
    api.emulator.fault(on="submit", **fault)
    answer = api.submit()
    assert (answer.status_code, answer.headers["content-type"], answer.text) == (code, content_type, text)


def test_an_answer_without_content_and_a_redirect(api: Api) -> None:
    api.emulator.fault(on="submit", http=204)
    assert (api.submit().status_code, api.emulator.stats()["submits"]) == (204, 0)
    api.emulator.fault(on="poll", redirect="https://example.com/")
    answer = api.poll(api.submit())
    assert (answer.status_code, answer.headers["location"]) == (302, "https://example.com/")


def test_a_dropped_submit_may_have_been_accepted(api: Api) -> None:
    for accept, jobs in ((False, 0), (True, 1)):
        api.emulator.fault(on="submit", drop=True, accept=accept)
        with pytest.raises(httpx.RemoteProtocolError):
            api.submit()
        assert api.emulator.stats()["submits"] == jobs
    api.emulator.fault(on="submit", http=504, accept=True)
    assert api.submit().status_code == 504
    assert api.emulator.stats()["submits"] == 2


def test_a_slow_answer(api: Api) -> None:
    api.emulator.fault(on="submit", delay=1, accept=True)
    with pytest.raises(httpx.ReadTimeout):
        api.http.post(f"{api.prefix}/flux-dev", json={"prompt": "x"}, timeout=0.2)
    assert api.emulator.stats()["submits"] == 1
    api.emulator.fault(on="submit", delay=0.01)
    assert api.submit().status_code == 200


def test_an_outage_ends_by_itself(api: Api) -> None:
    api.emulator.fault(on="any", http=503, seconds=0.3)
    while api.submit().status_code == 503:
        time.sleep(0.02)
    (fault,) = httpx.get(f"{api.emulator.url}/emulator/faults", trust_env=False, verify=False).json()
    assert fault["hits"] > 1
    assert fault["active"] is False


def test_which_requests_are_hit(api: Api) -> None:
    api.emulator.fault(on="submit", http=500, after=1, times=2, match="kite")
    api.emulator.fault(on="submit", http=502, match="flux-2")
    prompts = ["a dog", "a kite", "a dog", "a kite", "a kite", "a kite"]
    assert [api.submit(prompt=prompt).status_code for prompt in prompts] == [200, 200, 200, 500, 500, 200]
    assert [api.submit("flux-2-pro").status_code for _ in range(2)] == [502, 200]
    assert api.http.post(f"{api.prefix}/flux-dev", content=b"[]").status_code >= 400


@pytest.mark.parametrize("word", ["Error", "Failed", "Queued", "Request Moderated", "a new word"])
def test_any_status_word(api: Api, word: str) -> None:
    submitted = api.submit()
    api.emulator.fault(on="poll", status=word, details={"why": "because"})
    answer = api.poll(submitted).json()
    assert (answer["status"], answer["details"], answer["result"]) == (word, {"why": "because"}, None)
    assert api.poll(submitted).json()["status"] == "Ready"


def test_task_not_found_as_404_and_a_failure_as_503(api: Api) -> None:
    submitted = api.submit()
    api.emulator.fault(on="poll", status="Task not found", http=404)
    answer = api.poll(submitted)
    assert (answer.status_code, answer.json()["status"]) == (404, "Task not found")
    api.emulator.fault(on="poll", status="Error", http=503)
    assert api.poll(submitted).status_code == 503
    api.emulator.fault(on="poll", status="Task not found", http=404)
    answer = api.http.get(f"{api.prefix}/get_result", params={"id": "nobody"})
    assert (answer.status_code, answer.json()["id"]) == (404, "nobody")


def test_a_result_with_another_or_no_sample(api: Api) -> None:
    submitted = api.submit()
    for given in (None, "", "http://10.0.0.1/secret"):
        api.emulator.fault(on="poll", sample=given)
        result = api.poll(submitted).json()["result"]
        assert result.get("sample", "missing") == (given or "missing")


def test_a_sample_fault_waits_until_the_job_is_ready(api: Api) -> None:
    api.emulator.settings(duration=0.1)
    api.emulator.fault(on="poll", sample=None)
    assert "sample" not in api.result()["result"]


def test_ready_without_a_result(api: Api) -> None:
    api.emulator.settings(duration=60)
    api.emulator.fault(on="poll", status="Ready")
    answer = api.result()
    assert (answer["status"], answer["result"]) == ("Ready", None)


def test_a_submit_with_another_or_no_polling_url(api: Api) -> None:
    for given in (None, "", "https://evil.example/"):
        api.emulator.fault(on="submit", polling_url=given)
        assert api.submit().json().get("polling_url", "missing") == (given or "missing")


def test_the_wrapped_shape(api: Api) -> None:
    submitted = api.submit()
    api.emulator.fault(on="poll", shape="wrapped")
    answer = api.poll(submitted).json()
    assert answer["code"] == "success"
    assert answer["data"]["status"] == "SUCCESS"
    assert answer["data"]["data"]["sample"].startswith(api.emulator.url)
    assert api.poll(submitted).json()["status"] == "Ready"

    api.emulator.settings(shape="wrapped", duration=60)
    assert api.poll(api.submit()).json()["data"]["status"] == "IN_PROGRESS"
    refused = api.poll(api.submit(prompt="nsfw")).json()["data"]
    assert refused["status"] == "FAILURE"
    assert "Request Moderated" in refused["fail_reason"]


def test_the_replicate_shape(api: Api) -> None:
    api.emulator.settings(shape="replicate")
    answer = api.poll(api.submit()).json()
    assert answer["status"] == "succeeded"
    assert answer["output"][0].startswith(api.emulator.url)
    api.emulator.settings(duration=60)
    answer = api.poll(api.submit()).json()
    assert (answer["status"], answer["output"]) == ("processing", None)
    assert "Request Moderated" in api.poll(api.submit(prompt="nsfw")).json()["error"]


def test_truncated_images(bfl: Api) -> None:
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
    with httpx.stream("GET", link, trust_env=False, verify=False) as answer:
        assert int(answer.headers["content-length"]) == len(whole)
        with pytest.raises(httpx.RemoteProtocolError):
            for chunk in answer.iter_raw():
                received += chunk
    assert received == whole[: len(whole) // 2]

    bfl.emulator.fault(on="download", truncate=0)
    assert fetch(link).content == b""
    assert bfl.emulator.stats()["downloads"] == 1
    assert bfl.emulator.stats()["jobs"][0]["downloads"] == 1


def test_padded_and_dripping_images_are_whole(bfl: Api) -> None:
    link = bfl.link()
    whole = fetch(link).content
    bfl.emulator.fault(on="download", pad=10)
    assert fetch(link).content == whole + bytes(10)
    bfl.emulator.fault(on="download", drip=0.001)
    assert fetch(link).content == whole
    assert bfl.emulator.stats()["downloads"] == 3


def test_a_client_that_leaves_has_not_downloaded(bfl: Api) -> None:
    link = bfl.link()
    bfl.emulator.fault(on="download", drip=0.05)
    with httpx.stream("GET", link, trust_env=False, verify=False) as answer:
        next(answer.iter_raw())
    time.sleep(0.6)
    assert bfl.emulator.stats()["downloads"] == 0


def test_other_bytes_instead_of_the_image(bfl: Api) -> None:
    link = bfl.link()
    bfl.emulator.fault(on="download", body="<html>", content_type="text/html")
    answer = fetch(link)
    assert (answer.status_code, answer.text) == (200, "<html>")
    assert answer.headers["content-type"].startswith("text/html")
    bfl.emulator.fault(on="download", body="no image")
    assert fetch(link).headers["content-type"] == "image/png"
    bfl.emulator.fault(on="download", http=503)
    answer = fetch(link)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/xml")
    bfl.emulator.fault(on="download", drop=True)
    with pytest.raises(httpx.RemoteProtocolError):
        fetch(link)
    assert bfl.emulator.stats()["downloads"] == 0


def test_faults_can_be_taken_back(api: Api) -> None:
    for forget in (api.emulator.clear_faults, api.emulator.reset):
        api.emulator.fault(on="any", http=500, times=None)
        assert api.submit().status_code == 500
        forget()
        assert api.submit().status_code == 200


def test_an_error_of_another_code_has_some_message(comet: Api) -> None:
    comet.emulator.fault(on="submit", http=524)
    assert message(comet.submit()).startswith("Upstream service error")
