"""FluxHook with real Airflow connections, and its Test button."""

from __future__ import annotations

import asyncio
import io
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.connection import get_async_connection
from airflow.providers.common.compat.sdk import AirflowFailException

from airflow_provider_flux import exceptions as errors
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.hooks import flux as flux_hook
from airflow_provider_flux.hooks.flux import FluxHook
from tests.conftest import both_gateways

KITE = {"prompt": "a red kite", "width": 256, "height": 256}


def connect(monkeypatch: pytest.MonkeyPatch, **connection: object) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_FLUX_DEFAULT", json.dumps({"conn_type": "flux", **connection}))


@both_gateways
def test_submit_wait_download_as_in_a_task(flux: FluxEmulator, tmp_path: Path) -> None:
    hook = FluxHook()
    job = hook.submit("flux-dev", KITE)
    assert hook.wait(job.to_dict(), timeout=20).status == "Ready"
    result = hook.wait(job, timeout=20)
    path, file = tmp_path / "kite.jpeg", io.BytesIO()
    image = hook.download(result, path)
    assert hook.download(result, file) == image
    assert file.getvalue() == path.read_bytes()
    assert hook.get_result(job).status == "Ready"


@both_gateways
def test_async_methods(flux: FluxEmulator) -> None:
    hook = FluxHook()
    job = hook.submit("flux-dev", KITE)

    async def both() -> tuple[str, str]:
        return (await hook.wait_async(job, timeout=20)).status, (await hook.get_result_async(job)).status

    assert asyncio.run(both()) == ("Ready", "Ready")


def test_connection_lookup_is_shared_until_it_expires(flux: FluxEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = []

    async def counted(conn_id: str) -> Any:
        lookups.append(conn_id)
        await asyncio.sleep(0)
        return await get_async_connection(conn_id)

    monkeypatch.setattr(flux_hook, "get_async_connection", counted)
    waited = 0.0
    monkeypatch.setattr(flux_hook, "time", SimpleNamespace(monotonic=lambda: waited))

    async def all_at_once() -> set[Any]:
        return set(await asyncio.gather(*(FluxHook.get_endpoint_async("flux_default") for _ in range(1000))))

    async def lookup_correct_lookup() -> None:
        nonlocal waited
        (endpoint,) = await all_at_once()
        connect(monkeypatch, host=flux.url, password="the-right-key")
        assert await all_at_once() == {endpoint}
        assert len(lookups) == 1
        waited = flux_hook.ENDPOINT_TTL
        (corrected,) = await all_at_once()
        assert (corrected.api_key, len(lookups)) == ("the-right-key", 2)

    asyncio.run(lookup_correct_lookup())


def test_failed_connection_lookup_is_repeated(flux: FluxEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    async def missing_then_there() -> None:
        monkeypatch.delenv("AIRFLOW_CONN_FLUX_DEFAULT")
        with pytest.raises(errors.FluxConfigurationError, match="There is no Airflow connection 'flux_default'"):
            await FluxHook.get_endpoint_async("flux_default")
        connect(monkeypatch, host=flux.url, password=flux.key)
        assert (await FluxHook.get_endpoint_async("flux_default")).api_key == flux.key

    asyncio.run(missing_then_there())


def test_permanent_errors_are_not_retried(flux: FluxEmulator) -> None:
    with pytest.raises(AirflowFailException, match="width must be a whole number") as caught:
        FluxHook().submit("flux-dev", {**KITE, "width": "wide"})
    assert isinstance(caught.value, errors.FluxBadRequestError)


@both_gateways
def test_test_button_submits_nothing(flux: FluxEmulator) -> None:
    works, told = FluxHook().test_connection()
    assert works
    assert "The key is valid" in told
    assert flux.key not in told
    assert flux.stats()["submit_requests"] == 0


@pytest.mark.parametrize("gateway", ["cometapi", "bfl"])
def test_test_button_distinguishes_an_invalid_key_from_an_unreachable_host(
    flux_emulator: FluxEmulator, unused_port: int, monkeypatch: pytest.MonkeyPatch, gateway: str
) -> None:
    extra = {"gateway": gateway, "timeout": 2}
    connect(monkeypatch, host=flux_emulator.url, password="a-wrong-key", extra=extra)
    works, wrong_key = FluxHook().test_connection()
    assert (works, "the key is invalid" in wrong_key) == (False, True)
    connect(monkeypatch, host=f"http://127.0.0.1:{unused_port}", password="a-wrong-key", extra=extra)
    works, unreachable = FluxHook().test_connection()
    assert (works, "cannot be reached" in unreachable) == (False, True)
    assert "a-wrong-key" not in wrong_key + unreachable


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        ({"host": "http://127.0.0.1:{port}/nowhere", "password": "key-123"}, "not a usable FLUX API"),
        ({"host": "http://127.0.0.1:{port}", "password": ""}, "is empty"),
        ({"host": "http://127.0.0.1:{port}", "password": "***"}, "airflow connections test"),
        ({"host": "nonsense://x", "password": "key-123"}, "not a base URL"),
        ({"host": "http://127.0.0.1:{port}", "password": "key-123", "extra": {"gateway": "x"}}, "gateway is 'x'"),
        (
            {"host": "http://127.0.0.1:{port}", "password": "key-123", "extra": {"allowed_delivery_networks": "x"}},
            "allowed_delivery_networks contains 'x'",
        ),
    ],
)
def test_test_button_explains_an_unusable_connection(
    flux_emulator: FluxEmulator, monkeypatch: pytest.MonkeyPatch, connection: dict[str, object], says: str
) -> None:
    port = flux_emulator.url.rpartition(":")[2]
    connect(monkeypatch, **{**connection, "host": str(connection["host"]).replace("{port}", port)})
    works, told = FluxHook().test_connection()
    assert not works
    assert says in told
    assert "key-123" not in told


@both_gateways
@pytest.mark.parametrize(
    ("fault", "works", "says"),
    [
        ({"http": 403, "json": {"error": {"code": "insufficient_user_quota"}}}, True, "no credits left"),
        ({"http": 429, "json": {"error": {"code": "insufficient_quota"}}}, True, "no credits left"),
        ({"http": 403, "text": "error code: 1010"}, False, "the key was not checked (HTTP 403: error code: 1010)"),
        ({"http": 404, "json": {"error": {"message": "Invalid URL (GET /x)"}}}, False, "Invalid URL (GET /x)"),
    ],
    ids=str,
)
def test_test_button_quotes_the_api(flux: FluxEmulator, fault: dict[str, Any], works: bool, says: str) -> None:
    flux.fault(on="any", times=None, **fault)
    found, told = FluxHook().test_connection()
    assert (found, says in told, "key is wrong" in told) == (works, True, False)


@pytest.mark.parametrize(
    ("connection", "says"),
    [
        (None, "There is no Airflow connection 'flux_default'"),
        ({"conn_type": "http", "password": "key-123"}, "'flux_default' is of type 'http', not 'flux'"),
    ],
)
def test_missing_connection_is_named_and_not_retried(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, object] | None, says: str
) -> None:
    monkeypatch.delenv("AIRFLOW_CONN_FLUX_DEFAULT", raising=False)
    if connection is not None:
        connect(monkeypatch, **connection)
    with pytest.raises(AirflowFailException, match=says) as caught:
        FluxHook().submit("flux-dev", KITE)
    assert isinstance(caught.value, errors.FluxConfigurationError)
    assert "airflow connections add flux_default --conn-type flux --conn-password" in str(caught.value)
    assert "key-123" not in str(caught.value)


def test_error_is_logged_once(flux: FluxEmulator, caplog: pytest.LogCaptureFixture) -> None:
    faults = []
    for hook in (FluxHook(), FluxHook(log_errors=False)):
        caplog.clear()
        with pytest.raises(errors.FluxBadRequestError):
            hook.submit("flux-dev", {**KITE, "width": "wide"})
        faults.append([line for line in caplog.messages if "width" in line])
    assert [len(lines) for lines in faults] == [1, 0]
    caplog.clear()
    with pytest.raises(errors.FluxConfigurationError):
        FluxHook("flux_nowhere").submit("flux-dev", KITE)
    assert len([line for line in caplog.messages if "There is no Airflow connection" in line]) == 1


def test_missing_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    works, told = FluxHook("flux_nowhere").test_connection()
    assert not works
    assert "flux_nowhere" in told


@pytest.mark.parametrize(
    ("connection", "base_url", "gateway"),
    [
        ({}, "https://api.cometapi.com", "cometapi"),
        ({"host": "api.bfl.ai"}, "https://api.bfl.ai", "bfl"),
        ({"host": "localhost", "port": 8089, "schema": "http"}, "http://localhost:8089", "cometapi"),
        ({"host": "http://localhost", "port": 8089}, "http://localhost:8089", "cometapi"),
        ({"host": "http://localhost/a/b", "port": 8089}, "http://localhost:8089/a/b", "cometapi"),
        ({"host": "http://localhost:1/a", "port": 8089}, "http://localhost:1/a", "cometapi"),
        ({"host": "http://[::1]", "port": 8089}, "http://[::1]:8089", "cometapi"),
        ({"host": "flux.example/a/b", "port": 8089}, "https://flux.example:8089/a/b", "cometapi"),
        ({"host": "flux.example:8089", "port": 8089}, "https://flux.example:8089", "cometapi"),
        ({"extra": {"gateway": "bfl"}}, "https://api.bfl.ai", "bfl"),
    ],
)
def test_connection_fields_are_read(
    monkeypatch: pytest.MonkeyPatch, connection: dict[str, object], base_url: str, gateway: str
) -> None:
    connect(monkeypatch, password="key-123", **connection)
    endpoint = FluxHook().endpoint
    assert (endpoint.base_url, endpoint.gateway, endpoint.api_key) == (base_url, gateway, "key-123")


@pytest.mark.parametrize("given", ["198.18.0.0/15, 10.0.0.0/8", ["198.18.0.0/15", "10.0.0.0/8"]])
def test_allowed_networks_are_read(monkeypatch: pytest.MonkeyPatch, given: object) -> None:
    connect(monkeypatch, password="key-123", extra={"allowed_delivery_networks": given})
    assert [str(network) for network in FluxHook().endpoint.delivery_networks] == ["198.18.0.0/15", "10.0.0.0/8"]


@both_gateways
def test_credits_by_gateway(flux: FluxEmulator) -> None:
    flux.settings(credits=42.5)
    if FluxHook().endpoint.gateway == "bfl":
        assert FluxHook().credits() == 42.5
    else:
        with pytest.raises(errors.FluxConfigurationError, match="cometapi does not return the remaining credits"):
            FluxHook().credits()
