"""The recipes with a language model and a vision model run from start to end."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from airflow_provider_flux.emulator import FluxEmulator
from tests.conftest import DAGS_FOLDER
from tests.dags.conftest import RunDag, run_to_failure, stored
from tests.servers.openai import ChatRequest, OpenAIServer
from tests.servers.seaweed import SeaweedFS
from tests.servers.web_app import serve


@pytest.fixture
def llm(monkeypatch: pytest.MonkeyPatch) -> Iterator[OpenAIServer]:
    server = OpenAIServer()
    with serve(server.app) as url:
        monkeypatch.setenv("AIRFLOW_CONN_PYDANTICAI_DEFAULT", json.dumps(server.connection(url)))
        yield server


def test_llm_prompt_reaches_flux_as_it_is(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, llm: OpenAIServer
) -> None:
    written = "A tea shop in autumn {{ 6 * 7 }} {{ var.value.secret }} {% raw %}"
    llm.answer = lambda request: written
    run_dag(DAGS_FOLDER / "llm_prompt.py")
    assert [job["prompt"] for job in flux_connection.stats()["jobs"]] == [written]
    assert "The theme: autumn in a tea shop" in llm.requests[0].text


@pytest.mark.parametrize("passing", [1, 3])
def test_vision_check_publishes_the_image_that_passes(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, llm: OpenAIServer, passing: int
) -> None:
    llm.answer = lambda request: {"passes": len(llm.requests) == passing, "reason": "There is no teapot."}
    returned = run_dag(DAGS_FOLDER / "vision_check.py")
    made = [returned[f"generate_{n}"][0] for n in range(1, passing + 1)]
    (published,) = returned["publish"]
    assert [image["seed"] for image in made] == list(range(1, passing + 1))
    assert [request.images for request in llm.requests] == [[stored(s3, image)] for image in made]
    assert all("A teapot on a wooden table" in request.text for request in llm.requests)
    assert stored(s3, published) == stored(s3, made[-1])
    assert flux_connection.stats()["submits"] == passing


def test_vision_check_publishes_nothing_that_does_not_pass(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, llm: OpenAIServer
) -> None:
    llm.answer = lambda request: {"passes": False, "reason": "There is no teapot."}
    run_to_failure(DAGS_FOLDER / "vision_check.py")
    assert flux_connection.stats()["submits"] == len(llm.requests) == 3
    assert "Contents" not in s3.client().list_objects_v2(Bucket=s3.bucket, Prefix="published/")


def test_the_double_refuses_what_openai_refuses() -> None:
    valid = {"model": "gpt-5-mini", "messages": [{"role": "user", "content": "hello"}]}
    url = {"type": "image_url", "image_url": {"url": "s3://flux/teapot.jpeg"}}
    assert ChatRequest.model_validate(valid).text == "hello"
    with_url = [{"role": "user", "content": [url]}]
    wrongs: list[dict[str, Any]] = [{"model": "flux-dev"}, {"messages": []}, {"messages": with_url}]
    for wrong in wrongs:
        with pytest.raises(ValidationError):
            ChatRequest.model_validate({**valid, **wrong})


def test_llm_with_a_wrong_key_fails_before_anything_is_billed(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, llm: OpenAIServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connection = json.loads(os.environ["AIRFLOW_CONN_PYDANTICAI_DEFAULT"])
    monkeypatch.setenv("AIRFLOW_CONN_PYDANTICAI_DEFAULT", json.dumps({**connection, "password": "sk-wrong"}))
    run_to_failure(DAGS_FOLDER / "llm_prompt.py")
    assert (llm.requests, flux_connection.stats()["submits"]) == ([], 0)
