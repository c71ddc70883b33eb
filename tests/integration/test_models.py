"""Each model's validation against the emulator's, over real HTTP, at both gateways: both accept the same requests."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from PIL import Image

from airflow_provider_flux.client.catalogue.models import MODELS
from airflow_provider_flux.client.catalogue.schema import BASE64, Parameter
from airflow_provider_flux.client.catalogue.validation import build_request
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
    "boolean": ["maybe", 7, ["true"]],
    "text": [["x"], {"a": 1}, True],
    "choice": ["other", 1, ["png"]],
    "ratio": ["16x9", "0:1", "16:9:1", ["16:9"]],
    "url": ["ftp://example.com", "example.com", ["https://example.com"]],
    "image": ["kite.png", 1, [PNG]],
    "images": [["kite.png"], [1], {"a": PNG}],
}


def valid_values(parameter: Parameter) -> list[Any]:
    """Return the values at the limits, the smallest first."""
    if parameter.type in ("integer", "number"):
        low = -1 if parameter.minimum is None else parameter.minimum
        high = parameter.certain_maximum or (2048 if parameter.maximum is None else parameter.maximum)
        return [low, low + (parameter.multiple_of or 1), high]
    if parameter.type == "boolean":
        return [False, True]
    if parameter.type == "choice":
        return list(parameter.choices)
    if parameter.type == "ratio":
        width, height = str(parameter.max_aspect_ratio).split(":")
        return [f"{height}:{width}", "1:1", f"{width}:{height}"]
    if parameter.type == "url":
        return ["http://x.example", "https://x.example/".ljust(int(parameter.maximum or 0), "y")]
    if parameter.type in ("image", "images"):
        images = [image for encoding in parameter.encodings for image in IMAGES[encoding]]
        return images if parameter.type == "image" else [[PNG], [PNG] * int(parameter.maximum or 0)]
    return ["x", "a red kite".ljust(int(parameter.maximum or 0), "y")]


def invalid_values(parameter: Parameter) -> list[Any]:
    """Return values just beyond the limits, and values of another type."""
    values = list(WRONG_TYPES[parameter.type])
    step = parameter.multiple_of or 1
    if parameter.type in ("integer", "number"):
        values += [] if parameter.minimum is None else [parameter.minimum - 1, parameter.minimum - step]
        values += [] if parameter.maximum is None else [parameter.maximum + 1, parameter.maximum + step]
        values += [] if parameter.multiple_of is None or parameter.minimum is None else [parameter.minimum + 1]
    elif parameter.type == "ratio":
        width, height = map(int, str(parameter.max_aspect_ratio).split(":"))
        values += [f"{width + 1}:{height}", f"{height}:{width + 1}"]
    elif parameter.type == "text" and parameter.maximum:
        values += ["x" * (int(parameter.maximum) + 1)]
    elif parameter.type == "url":
        values += ["https://x.example/".ljust(int(parameter.maximum or 0) + 1, "y")]
    elif parameter.type == "images":
        values += [[PNG] * (int(parameter.maximum or 0) + 1)]
    elif parameter.type == "image" and parameter.encodings == (BASE64,):
        values += IMAGES["url"]
    return values


def minimal_request(model: str, gateway: str) -> dict[str, Any]:
    """Return a request with only the required fields, each at its minimum."""
    own = MODELS[model].parameters_for(gateway)
    names = [name for name, parameter in own.items() if parameter.required]
    if not set(names) & set(MODELS[model].any_of):
        names += MODELS[model].any_of[:1]
    return {name: valid_values(own[name])[0] for name in names}


@pytest.fixture(params=[COMETAPI, BFL])
def client(request: pytest.FixtureRequest, flux_emulator: FluxEmulator) -> Iterator[FluxClient]:
    flux_emulator.settings(duration=0)
    with FluxClient(make_endpoint(flux_emulator.url, flux_emulator.key, request.param)) as client:
        yield client


OFFERED = pytest.mark.parametrize(
    ("client", "model"),
    [(gateway, name) for name, model in MODELS.items() for gateway in model.gateways],
    indirect=["client"],
)


@OFFERED
def test_api_accepts_what_the_client_accepts(client: FluxClient, flux_emulator: FluxEmulator, model: str) -> None:
    gateway = client.endpoint.gateway
    own = MODELS[model].parameters_for(gateway)
    largest = {name: valid_values(parameter)[-1] for name, parameter in own.items()}
    limited = MODELS[model].parameters_for(gateway, largest)
    bodies = [
        minimal_request(model, gateway),
        {name: valid_values(parameter)[-1] for name, parameter in limited.items()},
    ]
    bodies += [
        minimal_request(model, gateway) | {name: value}
        for name, parameter in own.items()
        for value in valid_values(parameter)
    ]
    for body in bodies:
        assert build_request(model, body, gateway, strict=True) == body
        client.submit(model, body)
    assert flux_emulator.stats()["submits"] == len(bodies)


@OFFERED
def test_api_refuses_what_the_client_refuses(client: FluxClient, flux_emulator: FluxEmulator, model: str) -> None:
    gateway, endpoint = client.endpoint.gateway, client.endpoint
    minimal = minimal_request(model, gateway)
    own = MODELS[model].parameters_for(gateway)
    # A prompt of another type is sent as JSON text.
    bodies = [
        minimal | {name: value}
        for name, parameter in own.items()
        if name != "prompt"
        for value in invalid_values(parameter)
    ]
    bodies += [{other: minimal[other] for other in minimal if other != name} for name in minimal if own[name].required]
    if MODELS[model].max_pixels:
        bodies += [minimal | {"width": 2048, "height": 2049}, minimal | {"width": 65537}]
    if MODELS[model].forbid_extra:
        bodies += [minimal | {"sparkle": 512}]
    if model.startswith("flux-kontext"):
        bodies += [minimal | {"width": 512}]
    with httpx.Client(headers=endpoint.auth_headers, trust_env=False) as http:
        for body in bodies:
            with pytest.raises(FluxBadRequestError):
                build_request(model, body, gateway)
            assert http.post(endpoint.submit_url(model), json=body).status_code in (400, 422), body
    assert flux_emulator.stats()["submits"] == 0


def test_what_is_only_likely_is_sent_with_one_warning(
    client: FluxClient, flux_emulator: FluxEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(2):
        client.submit("flux-2-pro", {"prompt": "x", "width": 1440, "height": 810})
    (line,) = caplog.messages
    assert line == "Sent to flux-2-pro: height 810 may be rounded to a multiple of 16."
    client.submit("flux-tools/deblur-v1", {"image": PNG})
    assert [job["model"] for job in flux_emulator.stats()["jobs"]][1:] == ["flux-2-pro", "flux-tools/deblur-v1"]


@pytest.mark.parametrize("model", [name for name, model in MODELS.items() if BFL not in model.gateways])
def test_model_that_a_gateway_no_longer_offers_is_refused_by_both(flux_emulator: FluxEmulator, model: str) -> None:
    endpoint = make_endpoint(flux_emulator.url, flux_emulator.key, BFL)
    with pytest.raises(FluxBadRequestError, match="not available at bfl"):
        build_request(model, minimal_request(model, BFL), BFL)
    answer = httpx.post(endpoint.submit_url(model), json={}, headers=endpoint.auth_headers, trust_env=False)
    assert answer.status_code == 404


def test_unknown_field_is_sent_with_one_warning_that_quotes_no_value(
    client: FluxClient, flux_emulator: FluxEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    client.submit("flux-dev", {"prompt": "x", "sparkle": "private", "widht": 512})
    (line,) = caplog.messages
    assert line == (
        "Sent without validation: unknown parameter 'sparkle'; unknown parameter 'widht' (did you mean width?)."
    )
    with pytest.raises(FluxBadRequestError, match="unknown parameter 'sparkle'"):
        client.submit("flux-dev", {"prompt": "x", "sparkle": "private"}, strict=True)
    assert [job["parameters"] for job in flux_emulator.stats()["jobs"]] == [
        {"prompt": "x", "sparkle": "private", "widht": 512}
    ]
