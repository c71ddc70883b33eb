"""Starting and stopping the emulator: in a thread, in a process, from the command line, as a pytest fixture."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys

import httpx
import pytest

import airflow_provider_flux.emulator as package
from airflow_provider_flux.emulator import FluxEmulator, __main__, pytest_plugin, serving

COMMAND = [sys.executable, "-m", "airflow_provider_flux.emulator"]


def test_thread_and_process_have_the_same_settings() -> None:
    for process in (False, True):
        with FluxEmulator(
            key="other", duration=(1, 2), link_ttl=5, max_active=3, credits=9, moderate=["x"], process=process
        ) as emulator:
            settings = emulator.settings()
            assert settings["duration"] == [1, 2]
            assert (settings["link_ttl"], settings["max_active"], settings["credits"]) == (5, 3, 9)
            assert settings["moderate"] == ["x"]
            response = httpx.get(
                f"{emulator.url}/v1/credits", headers={"x-key": "other"}, trust_env=False, verify=False
            )
            assert response.json() == {"credits": 9}
        with pytest.raises(httpx.ConnectError):
            httpx.get(emulator.url, trust_env=False, verify=False)
        emulator.stop()


def test_proxy_of_the_environment_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with FluxEmulator(duration=0, process=True) as emulator:
        assert emulator.settings()["duration"] == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_command_prints_url_and_key_and_stops_on_a_signal(number: signal.Signals) -> None:
    options = ["--port=0", "--key=k", "--duration=2-8", "--moderate=a", "--moderate=b"]
    child = subprocess.Popen([*COMMAND, *options], stdout=-1, stderr=-1, text=True)
    try:
        assert child.stdout is not None
        url, key = (child.stdout.readline().split()[-1] for _ in range(2))
        assert key == "k"
        settings = httpx.get(f"{url}/emulator/settings", trust_env=False, verify=False).json()
        assert (settings["duration"], settings["moderate"]) == ([2, 8], ["a", "b"])
        child.send_signal(number)
        output, errors = child.communicate(timeout=10)
    finally:
        child.kill()
    assert child.returncode == 0
    assert "Traceback" not in errors + output


def test_invalid_option_is_rejected_by_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for option, named in (("--duration=8-2", "duration"), ("--duration=x", "duration"), ("--link-ttl=-1", "link_ttl")):
        monkeypatch.setattr(sys, "argv", ["emulator", option])
        with pytest.raises(SystemExit) as stop:
            __main__.main()
        assert stop.value.code == 2
        assert named in capsys.readouterr().err


def test_port_in_use_is_reported(flux_emulator: FluxEmulator) -> None:
    port = flux_emulator.url.rpartition(":")[2]
    run = subprocess.run([*COMMAND, f"--port={port}"], capture_output=True, text=True)
    assert run.returncode == 1
    assert run.stderr.startswith(f"Cannot listen on 127.0.0.1:{port}: ")
    with pytest.raises(OSError, match="in use"):
        FluxEmulator(port=int(port)).start()
    with pytest.raises(RuntimeError, match="ended at once"):
        FluxEmulator(port=int(port), process=True).start()


def test_ipv6_url_has_brackets() -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6")
    try:
        sock = serving.listen("::1", 0)
    except OSError:
        pytest.skip("no IPv6 loopback")
    with sock:
        assert serving.url_of(sock).startswith("http://[::1]:")


def test_missing_extra_is_reported_with_the_install_command(monkeypatch: pytest.MonkeyPatch) -> None:
    command = "pip install 'airflow-provider-flux\\[emulator\\]'"
    monkeypatch.setattr(serving, "find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=command):
        FluxEmulator().start()
    monkeypatch.setattr(sys, "argv", ["emulator"])
    with pytest.raises(SystemExit, match=command):
        __main__.main()
    fixture = pytest_plugin._flux_emulator_server.__wrapped__()  # type: ignore[attr-defined]
    with pytest.raises(pytest.fail.Exception, match=command):
        next(fixture)


def test_import_of_package_or_plugin_loads_no_heavy_library() -> None:
    code = (
        "import sys, airflow_provider_flux.emulator.pytest_plugin, airflow_provider_flux.emulator.server\n"
        "loaded = {'fastapi', 'uvicorn', 'PIL', 'pydantic', 'airflow', 'httpx'} & set(sys.modules)\n"
        "sys.exit(', '.join(loaded) or 0)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    assert package.Settings().max_active == 24
    with pytest.raises(AttributeError):
        _ = package.nothing


def test_connection_for_airflow(flux_connection: FluxEmulator) -> None:
    connection = flux_connection.connection("bfl", timeout=3)
    assert connection == {
        "conn_type": "flux",
        "host": flux_connection.url,
        "password": "emulator-key",
        "extra": {"gateway": "bfl", "timeout": 3},
    }
    assert json.loads(os.environ["AIRFLOW_CONN_FLUX_DEFAULT"]) == flux_connection.connection()


def test_dropped_connection_without_a_server_raises() -> None:
    """`create_app` returns an ordinary ASGI application, which needs no uvicorn."""
    import asyncio

    async def run() -> None:
        transport = httpx.ASGITransport(package.create_app())
        async with httpx.AsyncClient(transport=transport, base_url="http://flux") as client:
            await client.post("/emulator/faults", json={"on": "submit", "drop": True})
            with pytest.raises(ConnectionResetError):
                await client.post("/v1/flux-dev")
            await client.patch("/emulator/settings", json={"duration": 0})
            key = {"x-key": "emulator-key"}
            submitted = await client.post("/v1/flux-dev", headers=key, json={"prompt": "x"})
            ready = await client.get(submitted.json()["polling_url"], headers=key)
            image = await client.get(ready.json()["result"]["sample"])
            assert image.status_code == 200

    asyncio.run(run())
