"""Each model's check against the emulator's, over real HTTP, at both gateways: what one takes the other takes."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from airflow_provider_flux.client.catalogue.models import BASE64, MODELS, Parameter
from airflow_provider_flux.client.catalogue.validation import prepare
from airflow_provider_flux.client.client import FluxClient
from airflow_provider_flux.client.gateways import BFL, COMETAPI, make_endpoint
from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import FluxBadRequestError


def _png() -> str:
    file = io.BytesIO()
    Image.new("RGB", (256, 256), "teal").save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


PNG = _png()
IMAGES = {"base64": [PNG, f"data:image/png;base64,{PNG}"], "url": ["https://example.com/kite.png"]}
# Without true as a number: the client refuses it, the API reads it as 1.
WRONG_TYPES: dict[str, list[Any]] = {
    "integer": ["wide", 300.5, [1]],
    "number": ["wide", [1]],
    "boolean": ["perhaps", 7, ["true"]],
    "text": [["x"], {"a": 1}, True],
    "choice": ["other", 1, ["png"]],
    "ratio": ["16x9", "0:1", "16:9:1", ["16:9"]],
    "url": ["ftp://example.com", "example.com", ["https://example.com"]],
    "image": ["kite.png", 1, [PNG]],
    "images": [["kite.png"], [1], {"a": PNG}],
}


def right(parameter: Parameter) -> list[Any]:
    """Return what is only just taken, the least first."""
    if parameter.kind in ("integer", "number"):
        low = -1 if parameter.low is None else parameter.low
        high = 2048 if parameter.high is None else parameter.high
        return [low, low + (parameter.step or 1), high]
    if parameter.kind == "boolean":
        return [False, True]
    if parameter.kind == "choice":
        return list(parameter.choices)
    if parameter.kind == "ratio":
        width, height = str(parameter.widest).split(":")
        return [f"{height}:{width}", "1:1", f"{width}:{height}"]
    if parameter.kind == "url":
        return ["http://x.example", "https://x.example/".ljust(int(parameter.high or 0), "y")]
    if parameter.kind in ("image", "images"):
        images = [image for form in parameter.forms for image in IMAGES[form]]
        return images if parameter.kind == "image" else [[PNG], [PNG] * int(parameter.high or 0)]
    return ["x", "a red kite"]


def wrong(parameter: Parameter) -> list[Any]:
    """Return what is only just refused, and values of another type."""
    values = list(WRONG_TYPES[parameter.kind])
    step = parameter.step or 1
    if parameter.kind in ("integer", "number"):
        values += [] if parameter.low is None else [parameter.low - 1, parameter.low - step]
        values += [] if parameter.high is None else [parameter.high + 1, parameter.high + step]
        values += [] if parameter.step is None or parameter.low is None else [parameter.low + 1]
    elif parameter.kind == "ratio":
        width, height = map(int, str(parameter.widest).split(":"))
        values += [f"{width + 1}:{height}", f"{height}:{width + 1}"]
    elif parameter.kind == "url":
        values += ["https://x.example/".ljust(int(parameter.high or 0) + 1, "y")]
    elif parameter.kind == "images":
        values += [[PNG] * (int(parameter.high or 0) + 1)]
    elif parameter.kind == "image" and parameter.forms == (BASE64,):
        values += IMAGES["url"]
    return values


def least(model: str, gateway: str) -> dict[str, Any]:
    """Return the smallest request for a model."""
    own = MODELS[model].on(gateway)
    names = [name for name, parameter in own.items() if parameter.required]
    if not set(names) & set(MODELS[model].one_of):
        names += MODELS[model].one_of[:1]
    return {name: right(own[name])[0] for name in names}


@pytest.fixture(params=[COMETAPI, BFL])
def client(request: pytest.FixtureRequest, flux_emulator: FluxEmulator) -> Iterator[FluxClient]:
    flux_emulator.settings(duration=0)
    with FluxClient(make_endpoint(flux_emulator.url, flux_emulator.key, request.param)) as client:
        yield client


@pytest.mark.parametrize("model", MODELS)
def test_what_we_let_pass_the_api_takes(client: FluxClient, flux_emulator: FluxEmulator, model: str) -> None:
    gateway = client.endpoint.gateway
    own = MODELS[model].on(gateway)
    bodies = [least(model, gateway), {name: right(parameter)[-1] for name, parameter in own.items()}]
    bodies += [least(model, gateway) | {name: value} for name, parameter in own.items() for value in right(parameter)]
    bodies += [least(model, gateway) | {"width": 65536}] if MODELS[model].pixels else []
    for body in bodies:
        assert prepare(model, body, gateway, strict=True) == body
        client.submit(model, body)
    assert flux_emulator.stats()["submits"] == len(bodies)


@pytest.mark.parametrize("model", MODELS)
def test_what_we_refuse_the_api_refuses(client: FluxClient, flux_emulator: FluxEmulator, model: str) -> None:
    gateway, endpoint = client.endpoint.gateway, client.endpoint
    some = least(model, gateway)
    own = MODELS[model].on(gateway)
    # A prompt that is no text is sent as JSON text.
    bodies = [some | {name: value} for name, parameter in own.items() if name != "prompt" for value in wrong(parameter)]
    bodies += [{other: some[other] for other in some if other != name} for name in some if own[name].required]
    if MODELS[model].pixels:
        bodies += [some | {"width": 2048, "height": 2064}, some | {"width": 65552}]
    if MODELS[model].strict or model.startswith("flux-kontext"):
        bodies += [some | {"width": 512}]
    with httpx.Client(headers=endpoint.auth_headers, trust_env=False) as http:
        for body in bodies:
            with pytest.raises(FluxBadRequestError):
                prepare(model, body, gateway)
            assert http.post(endpoint.submit_url(model), json=body).status_code in (400, 422), body
    assert flux_emulator.stats()["submits"] == 0


def test_what_is_not_known_is_sent_with_one_line_that_tells_no_value(
    client: FluxClient, flux_emulator: FluxEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    client.submit("flux-dev", {"prompt": "x", "sparkle": "private", "widht": 512})
    (line,) = caplog.messages
    assert line == "Sent as it is, unchecked: sparkle is not known here; widht is not known here (did you mean width?)."
    with pytest.raises(FluxBadRequestError, match="sparkle is not known here"):
        client.submit("flux-dev", {"prompt": "x", "sparkle": "private"}, strict=True)
    assert [job["parameters"] for job in flux_emulator.stats()["jobs"]] == [
        {"prompt": "x", "sparkle": "private", "widht": 512}
    ]
