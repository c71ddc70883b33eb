"""Responses over real HTTP: endless, with the key in them, garbled, or with a Retry-After header."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.client.client import MAX_RESPONSE_BYTES, FluxClient, shared_client
from airflow_provider_flux.client.gateways import make_endpoint
from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.emulator import FluxEmulator

KITE = {"prompt": "a red kite", "width": 256, "height": 256}
JOB = Job("abc-1")


@pytest.fixture
def client(flux_emulator: FluxEmulator) -> FluxClient:
    return FluxClient(make_endpoint(flux_emulator.url, flux_emulator.key))


def poll(client: FluxClient, side: str) -> Any:
    if side == "sync":
        return client.get_result(JOB)

    async def poll_once() -> Any:
        async with shared_client(client.endpoint) as shared:
            return await shared.get_result(JOB)

    return asyncio.run(poll_once())


@pytest.mark.parametrize("side", ["sync", "async"])
def test_endless_response_is_not_read_to_its_end(client: FluxClient, flux_emulator: FluxEmulator, side: str) -> None:
    ready = '{"status": "Ready", "result": {"sample": "https://d.example/x"}}'
    flux_emulator.fault(on="poll", text=ready + " " * MAX_RESPONSE_BYTES)
    with pytest.raises(errors.FluxServiceError, match=f"more than {MAX_RESPONSE_BYTES} bytes.*Job abc-1 was accepted"):
        poll(client, side)
    flux_emulator.fault(on="poll", text=ready + " " * (MAX_RESPONSE_BYTES - len(ready)))
    assert poll(client, side).sample == "https://d.example/x"


@pytest.mark.parametrize("side", ["sync", "async"])
@pytest.mark.parametrize("code", [200, 401, 422, 500])
def test_key_is_masked_where_a_server_quotes_it(
    client: FluxClient, flux_emulator: FluxEmulator, side: str, code: int
) -> None:
    message = f"Incorrect API key provided: {flux_emulator.key}."
    for body in (
        {"error": {"message": message}},
        {"detail": [{"loc": ["header"], "msg": message}]},
        {"detail": message},
    ):
        flux_emulator.fault(on="any", http=code, json=body)
        with pytest.raises(errors.FluxError, match=r"Incorrect API key provided: \*\*\*\.") as caught:
            poll(client, side)
        assert flux_emulator.key not in str(caught.value)
    flux_emulator.fault(on="poll", json={"status": "Error", "details": message})
    assert poll(client, side).reason == "Incorrect API key provided: ***."


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("17", 17.0),
        ("0.5", 0.5),
        ("86400", 600.0),
        ("-3", 0.0),
        ("nan", None),
        ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 600.0),
        ("Wed, 21 Oct 2015 07:28:00 +9999999999999", None),
        ("soon", None),
    ],
)
def test_retry_after_is_parsed_as_seconds_or_as_a_date(
    client: FluxClient, flux_emulator: FluxEmulator, header: str, seconds: float | None
) -> None:
    flux_emulator.fault(on="any", http=429, headers={"Retry-After": header}, times=3)
    for request in (
        lambda: poll(client, "sync"),
        lambda: poll(client, "async"),
        lambda: client.submit("flux-dev", KITE, 0),
    ):
        with pytest.raises((errors.FluxRateLimitError, errors.FluxServiceError)) as caught:
            request()
        assert caught.value.retry_after == seconds


@pytest.mark.parametrize(
    "fault",
    [
        {"text": '{"id": "abc'},
        {"text": "accepted, thank you"},
        {"json": ["abc"]},
        {"json": {"id": " "}},
        {"json": {"id": None, "status": "Pending"}},
        {"json": {"id": "abc", "error": "maybe"}},
        {"http": 204},
    ],
    ids=str,
)
def test_garbled_success_of_a_submit_may_have_been_billed(
    client: FluxClient, flux_emulator: FluxEmulator, fault: dict[str, Any]
) -> None:
    flux_emulator.fault(on="submit", accept=True, **fault)
    with pytest.raises(errors.FluxUncertainSubmitError, match="one image may have been billed"):
        client.submit("flux-dev", KITE)
    assert flux_emulator.stats()["submit_requests"] == 1


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ({"http": 404, "json": {"detail": "Not Found"}}, errors.FluxConfigurationError),
        ({"http": 404, "json": {}}, errors.FluxConfigurationError),
        ({"json": {"status": "Pending"}}, errors.FluxConfigurationError),
        ({"json": {"status": "Ready", "result": {"sample": "https://d.example/x"}}}, errors.FluxConfigurationError),
        ({"json": {"status": "ok"}}, errors.FluxConfigurationError),
        ({"html": "<html>Task not found</html>"}, errors.FluxConfigurationError),
        ({"json": {"hello": "world"}}, errors.FluxServiceError),
        ({"http": 500}, errors.FluxServiceError),
    ],
    ids=str,
)
def test_only_task_not_found_verifies_the_key(
    client: FluxClient, flux_emulator: FluxEmulator, fault: dict[str, Any], error: type[errors.FluxError]
) -> None:
    flux_emulator.fault(on="poll", **fault)
    with pytest.raises(error) as caught:
        client.check()
    assert type(caught.value) is error
    for known in ({"status": "Task not found"}, {"status": "Task not found", "http": 404}):
        flux_emulator.fault(on="poll", **known)
        assert "The key is valid" in client.check()
