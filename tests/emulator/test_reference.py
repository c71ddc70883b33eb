"""The emulator rejects a body exactly as a FastAPI application with Black Forest Labs' published schemas does.

The schemas here are written by hand from https://api.bfl.ai/openapi.json; the emulator builds its own from a table.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from enum import Enum
from typing import Annotated, Any, Literal

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, HttpUrl

from airflow_provider_flux.emulator import Settings, create_app


class OutputFormat(str, Enum):  # noqa: UP042 - the usual way in a FastAPI application
    jpeg = "jpeg"
    png = "png"
    webp = "webp"


Ratio = Literal[
    "21:9", "2:1", "16:9", "3:2", "7:5", "4:3", "5:4", "1:1", "4:5", "3:4", "5:7", "2:3", "9:16", "1:2", "9:21"
]


class FluxDev(BaseModel):
    prompt: str = ""
    image_prompt: str | None = None
    width: int = Field(1024, ge=256, le=1440, multiple_of=32)
    height: int = Field(768, ge=256, le=1440, multiple_of=32)
    steps: Annotated[int, Field(ge=1, le=50)] | None = 28
    prompt_upsampling: bool = False
    seed: int | None = None
    guidance: Annotated[float, Field(ge=1.5, le=5)] | None = 3.0
    safety_tolerance: int = Field(2, ge=0, le=6)
    output_format: OutputFormat | None = OutputFormat.jpeg
    webhook_url: HttpUrl | None = None
    webhook_secret: str | None = None
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None


class Flux2Pro(BaseModel):
    prompt: str
    input_image: str | None = None
    input_image_2: str | None = None
    input_image_3: str | None = None
    input_image_4: str | None = None
    input_image_5: str | None = None
    input_image_6: str | None = None
    input_image_7: str | None = None
    input_image_8: str | None = None
    seed: int | None = None
    width: Annotated[int, Field(ge=64)] | None = 0
    height: Annotated[int, Field(ge=64)] | None = 0
    safety_tolerance: int = Field(2, ge=0, le=5)
    output_format: OutputFormat | None = OutputFormat.jpeg
    webhook_url: HttpUrl | None = None
    webhook_secret: str | None = None
    user: Annotated[str, Field(min_length=1, max_length=256)] | None = None
    disable_pup: bool = False


class Flux3Image(BaseModel):
    model_config = ConfigDict(extra="forbid")

    prompt: str
    images: str | Annotated[list[str], Field(min_length=1, max_length=10)] | None = None
    aspect_ratio: Ratio | Literal["auto"] = "auto"
    resolution: Literal["768sq", "1k", "1.5k", "2k", "4k"] = "1k"
    safety_tolerance: int = Field(2, ge=0, le=7)
    grounding: bool = True
    version: str = "latest"


SCHEMAS: dict[str, type[BaseModel]] = {"flux-dev": FluxDev, "flux-2-pro": Flux2Pro, "flux-3-image": Flux3Image}


def reference_app() -> FastAPI:
    app = FastAPI()

    @app.post("/v1/flux-dev")
    async def flux_dev(body: FluxDev) -> str:
        return body.prompt

    @app.post("/v1/flux-2-pro")
    async def flux_2_pro(body: Flux2Pro) -> str:
        return body.prompt

    @app.post("/v1/flux-3-image")
    async def flux_3_image(body: Flux3Image) -> str:
        return body.prompt

    @app.get("/v1/get_result")
    async def get_result(id: str) -> str:
        return id

    return app


class Apis:
    """The reference and the emulator, each in this process."""

    def __init__(self, reference: TestClient, emulator: TestClient) -> None:
        self.reference, self.emulator = reference, emulator

    def submit(self, model: str, content: bytes, content_type: str | None) -> tuple[Any, Any]:
        """Return the responses of the reference and of the emulator."""
        headers = {} if content_type is None else {"content-type": content_type}
        url = f"/v1/{model}"
        return (
            self.reference.post(url, content=content, headers=headers),
            self.emulator.post(url, content=content, headers=headers),
        )


@pytest.fixture(scope="module")
def apis() -> Iterator[Apis]:
    app = create_app(Settings(duration=0, credits=1e12))
    with TestClient(reference_app()) as reference, TestClient(app, headers={"x-key": "emulator-key"}) as emulator:
        yield Apis(reference, emulator)


def assert_same(apis: Apis, model: str, content: bytes, content_type: str | None = "application/json") -> None:
    expected, actual = apis.submit(model, content, content_type)
    if expected.status_code != 200:
        assert (actual.status_code, actual.json()) == (expected.status_code, expected.json())
    else:
        # HTTP 400 is an input image that cannot be decoded.
        assert actual.status_code in (200, 400), actual.text


WORDS = [
    "",
    "1",
    "64",
    "1024",
    "1e3",
    "2.0",
    "0x10",
    " 8 ",
    "1_000",
    "true",
    "yes",
    "off",
    "jpeg",
    "JPEG",
    "1k",
    "16:9",
]
URLS = ["http://", "//x", "ftp://x.example", "http://[", "https://x.example/a b", "https://" + "x" * 2100, "a@b", "x:y"]
NUMBERS = st.one_of(
    st.integers(),
    st.sampled_from([0, 1, 2, 5, 6, 7, 50, 51, 63, 64, 80, 255, 256, 257, 1024, 1440, 1472, 2**63, 10**30, -(2**70)]),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from([1.0, 1.5, 5.0, 5.1, 64.5, 1024.0, 1e20, -0.0]),
)
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.sampled_from(WORDS + URLS), st.text())
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=12) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def bodies(model: str) -> st.SearchStrategy[dict[str, Any]]:
    names = st.sampled_from([*SCHEMAS[model].model_fields, "Prompt", "sparkle", "negative_prompt"])
    return st.dictionaries(names, VALUES, max_size=8)


@pytest.mark.parametrize("model", SCHEMAS)
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_random_body_gets_the_response_of_the_reference(apis: Apis, model: str, data: st.DataObject) -> None:
    body = data.draw(bodies(model))
    assert_same(apis, model, json.dumps(body).encode())


INVALID: list[Any] = [
    *("", "x", "1024", "10.5", 1024.5, -1, 0, 10**6, True, False, None, [], [1], ["x"] * 11, {}, {"a": {"b": []}}),
    *("x" * 5000, "gif", "8k", "3:1", "https://", "mailto:a@x.example", "https://x.example/" + "x" * 2083),
]


@pytest.mark.parametrize("model", SCHEMAS)
def test_each_field_with_each_invalid_value_gets_the_response_of_the_reference(apis: Apis, model: str) -> None:
    for name in [*SCHEMAS[model].model_fields, "sparkle"]:
        for value in INVALID:
            assert_same(apis, model, json.dumps({"prompt": "a red kite", name: value}).encode())


@pytest.mark.parametrize("model", SCHEMAS)
def test_errors_are_in_the_order_of_the_published_schema(apis: Apis, model: str) -> None:
    body = {name: {"wrong": "type"} for name in reversed(SCHEMAS[model].model_fields)}
    expected, actual = apis.submit(model, json.dumps(body).encode(), "application/json")
    assert actual.json() == expected.json()
    assert len(actual.json()["detail"]) >= len(body)


@pytest.mark.parametrize(
    "content_type",
    [None, "", "text/plain", "application/json", "application/json; charset=utf-8", "application/problem+json", "json"],
)
@pytest.mark.parametrize(
    "content",
    [
        *(b"", b" ", b"{", b"[]", b'"x"', b"null", b"1", b"true", b'{"prompt": "x"', b'{"prompt": "x"} y', b"{'a': 1}"),
        *(b"prompt=x", b'{"prompt": 1}', b"[" * 100_000, b'{"seed": ' + b"9" * 5000 + b"}"),
    ],
)
def test_malformed_body_gets_the_response_of_the_reference(
    apis: Apis, content: bytes, content_type: str | None
) -> None:
    assert_same(apis, "flux-2-pro", content, content_type)


@pytest.mark.parametrize("content", [b"\xff", b'{"prompt": "\xff"}', b'{"prompt": "x"}'.decode().encode("utf-16")])
def test_json_that_is_not_utf_8_gets_the_response_of_the_reference(apis: Apis, content: bytes) -> None:
    assert_same(apis, "flux-2-pro", content)


def test_missing_id_gets_the_response_of_the_reference(apis: Apis) -> None:
    expected, actual = apis.reference.get("/v1/get_result"), apis.emulator.get("/v1/get_result")
    assert (actual.status_code, actual.json()) == (expected.status_code, expected.json())
