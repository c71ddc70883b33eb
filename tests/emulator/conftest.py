"""A client for each dialect, written from the API documentation alone."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.emulator.pytest_plugin import (  # noqa: F401 - fixtures
    _flux_emulator_server,
    flux_connection,
    flux_emulator,
)


class Api:
    """A client of one dialect, over real HTTP."""

    def __init__(self, emulator: FluxEmulator, gateway: str) -> None:
        self.emulator, self.gateway = emulator, gateway
        comet = gateway == "cometapi"
        self.prefix = "/flux/v1" if comet else "/v1"
        self.headers = {"Authorization": f"Bearer {emulator.key}"} if comet else {"x-key": emulator.key}
        self.http = httpx.Client(base_url=emulator.url, headers=self.headers, trust_env=False, verify=False)

    def submit(self, model: str = "flux-dev", **parameters: Any) -> httpx.Response:
        return self.http.post(f"{self.prefix}/{model}", json={"prompt": "a red kite", **parameters})

    def poll(self, submitted: httpx.Response) -> httpx.Response:
        if self.gateway == "bfl":
            return self.http.get(submitted.json()["polling_url"])
        return self.http.get("/flux/v1/get_result", params={"id": submitted.json()["id"]})

    def result(self, model: str = "flux-dev", **parameters: Any) -> dict[str, Any]:
        """Submit, and poll until the job has ended."""
        submitted = self.submit(model, **parameters)
        assert submitted.status_code == 200, submitted.text
        while True:
            body = self.poll(submitted).json()
            if body["status"] != "Pending":
                return dict(body)
            time.sleep(0.02)

    def link(self, model: str = "flux-dev", **parameters: Any) -> str:
        return str(self.result(model, **parameters)["result"]["sample"])


@pytest.fixture(params=["cometapi", "bfl"])
def api(request: pytest.FixtureRequest, flux_emulator: FluxEmulator) -> Iterator[Api]:  # noqa: F811
    """Each dialect in turn. Jobs are ready at once."""
    yield from _open(flux_emulator, request.param)


@pytest.fixture
def comet(flux_emulator: FluxEmulator) -> Iterator[Api]:  # noqa: F811
    yield from _open(flux_emulator, "cometapi")


@pytest.fixture
def bfl(flux_emulator: FluxEmulator) -> Iterator[Api]:  # noqa: F811
    yield from _open(flux_emulator, "bfl")


def _open(emulator: FluxEmulator, gateway: str) -> Iterator[Api]:
    emulator.settings(duration=0)
    api = Api(emulator, gateway)
    with api.http:
        yield api


def fetch(url: str, **headers: str) -> httpx.Response:
    return httpx.get(url, headers=headers, trust_env=False, verify=False)


def png(width: int = 300, height: int = 256) -> str:
    """A PNG of this size as base64."""
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


def message(response: httpx.Response) -> str:
    """The text of an error in either dialect."""
    body = response.json()
    return str(body["error"]["message"] if "error" in body else body["detail"])
