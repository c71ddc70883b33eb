"""Which bodies are accepted and rejected; a rejection names the field and creates no job."""

from __future__ import annotations

from typing import Any

import pytest

from .conftest import Api, message, png

INVALID: list[tuple[str, str, Any, str]] = [
    ("flux-dev", "width", "wide", "int_parsing"),
    ("flux-dev", "width", True, "multiple_of"),
    ("flux-dev", "width", 1024.5, "int_from_float"),
    ("flux-dev", "width", None, "int_type"),
    ("flux-dev", "width", 1000, "multiple_of"),
    ("flux-dev", "width", 224, "greater_than_equal"),
    ("flux-dev", "height", 1472, "less_than_equal"),
    ("flux-dev", "seed", [1], "int_type"),
    ("flux-dev", "steps", 51, "less_than_equal"),
    ("flux-dev", "guidance", "high", "float_parsing"),
    ("flux-dev", "guidance", 5.1, "less_than_equal"),
    ("flux-dev", "prompt", 5, "string_type"),
    ("flux-dev", "prompt", None, "string_type"),
    ("flux-dev", "prompt_upsampling", "perhaps", "bool_parsing"),
    ("flux-dev", "safety_tolerance", 7, "less_than_equal"),
    ("flux-dev", "output_format", "gif", "enum"),
    ("flux-dev", "webhook_url", "", "url_parsing"),
    ("flux-dev", "webhook_url", "https://example.com/" + "x" * 2083, "url_too_long"),
    ("flux-dev", "webhook_url", "example.com", "url_parsing"),
    ("flux-dev", "webhook_url", "ftp://example.com", "url_scheme"),
    ("flux-dev", "image_prompt", 1, "string_type"),
    ("flux-pro-1.1-ultra", "aspect_ratio", "22:9", "value_error"),
    ("flux-pro-1.1-ultra", "aspect_ratio", "wide", "value_error"),
    ("flux-pro-1.1-ultra", "aspect_ratio", "0:1", "value_error"),
    ("flux-kontext-pro", "aspect_ratio", "5:2", "value_error"),
    ("flux-kontext-pro", "width", 1024, "value_error"),
    ("flux-kontext-pro", "width", None, "value_error"),
    ("flux-2-pro", "prompt", None, "string_type"),
    ("flux-2-pro", "width", 0, "greater_than_equal"),
    ("flux-2-pro", "user", "", "string_too_short"),
    ("flux-2-pro", "user", "x" * 257, "string_too_long"),
    ("flux-2-max", "disable_pup", None, "bool_type"),
    ("flux-2-pro", "safety_tolerance", 6, "less_than_equal"),
    ("flux-2-flex", "guidance", 1, "greater_than_equal"),
    ("flux-3-image", "safety_tolerance", 8, "less_than_equal"),
    ("flux-3-image", "seed", 1, "extra_forbidden"),
    ("flux-3-image", "resolution", "8k", "literal_error"),
    ("flux-tools/deblur-v1", "image", None, "string_type"),
]


@pytest.mark.parametrize(("model", "field", "value", "type_"), INVALID)
def test_invalid_value_is_rejected_with_its_field(bfl: Api, model: str, field: str, value: Any, type_: str) -> None:
    response = bfl.submit(model, **{field: value})
    assert response.status_code == 422
    (entry,) = response.json()["detail"]
    assert (entry["loc"], entry["type"], entry["input"]) == (["body", field], type_, value)
    assert entry["msg"]
    assert bfl.emulator.stats()["submits"] == 0


@pytest.mark.parametrize(
    ("field", "value"),
    [("aspect_ratio", "3:1"), ("images", []), ("images", [1]), ("images", ["https://example.com/a.png"] * 11)],
)
def test_value_that_matches_no_alternative_of_flux_3_is_rejected(bfl: Api, field: str, value: Any) -> None:
    response = bfl.submit("flux-3-image", **{field: value})
    assert response.status_code == 422
    assert [entry["loc"][:2] for entry in response.json()["detail"]] == [["body", field]] * 2


def test_total_pixels_above_the_maximum_are_rejected(bfl: Api) -> None:
    response = bfl.submit("flux-tools/outpainting-v1", input_image=png(), width=2048, height=2064)
    assert response.status_code == 422
    (entry,) = response.json()["detail"]
    assert entry == {
        "type": "value_error",
        "loc": ["body", "width"],
        "msg": "Value error, width x height must not exceed 4 megapixels",
        "input": 2048,
        "ctx": {"error": {}},
    }


def test_cometapi_reports_all_errors_in_one_message(comet: Api) -> None:
    response = comet.submit("flux-kontext-pro", width=1024, seed="one")
    assert response.status_code == 400
    assert response.json()["error"]["code"] == "invalid_request"
    assert "does not support width/height" in message(response)
    assert "body.seed: Input should be a valid integer" in message(response)


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("flux-dev", {"negative_prompt": "unknown fields are ignored", "seed": None, "width": 1440}),
    ("flux-dev", {"steps": 50, "guidance": 5, "webhook_url": None, "prompt": "Grüße 한국 \U0001f600"}),
    ("flux-dev", {"width": "1024", "height": 1024.0, "seed": "7", "guidance": "3", "prompt_upsampling": "yes"}),
    ("flux-dev", {"seed": -(2**70), "user": "customer-17"}),
    ("flux-pro-1.1-ultra", {"aspect_ratio": "9:21", "raw": True, "width": "ignored"}),
    ("flux-pro-1.1-ultra-finetuned", {"finetune_id": "org/x", "finetune_strength": 2}),
    ("flux-kontext-max", {"aspect_ratio": None, "input_image": "https://example.com/a.png"}),
    ("flux-pro-1.0-fill", {"image": png(), "prompt_upsampling": None, "steps": None, "guidance": None}),
    ("flux-pro-1.0-expand", {"image": f"data:image/png;base64,{png()}", "left": 40, "top": None}),
    ("flux-2-pro", {"width": None, "height": 1040, "input_image_8": png(), "disable_pup": True}),
    ("flux-2-pro", {"width": 10**30, "height": 64}),
    ("flux-2-klein-base-9b-finetuned", {"finetune_id": "org/x"}),
    ("flux-2-flex", {"prompt_upsampling": None}),
    ("flux-2-klein-4b", {"input_image_8": "klein does not have this parameter"}),
    ("flux-3-image", {"images": [png(), "https://example.com/a.png"], "resolution": "768sq", "version": "latest"}),
    ("flux-3-image", {"images": png(), "aspect_ratio": "9:21", "safety_tolerance": 7}),
    ("flux-3-image-klein", {"width": 1000, "height": 700, "seed": 7, "resolution": "4k"}),
    (
        "flux-tools/outpainting-v1",
        {"input_image": png(64, 64), "width": 1920, "height": 1080},
    ),
    ("flux-tools/erase-v1", {"image": png(), "mask": png(), "dilate_pixels": 25}),
    ("flux-tools/deblur-v1", {"image": "https://example.com/a.png"}),
    ("flux-tools/vto-v2", {"person": png(), "garment": "https://example.com/a.png"}),
]


@pytest.mark.parametrize(("model", "parameters"), ACCEPTED)
def test_valid_parameters_are_accepted(api: Api, model: str, parameters: dict[str, Any]) -> None:
    response = api.submit(model, **parameters)
    assert response.status_code == 200, response.text


@pytest.mark.parametrize("model", ["flux-pro", "flux-pro-1.0-canny", "flux-pro-1.0-depth"])
def test_model_that_its_vendor_no_longer_sells_is_left_to_the_gateway(bfl: Api, comet: Api, model: str) -> None:
    assert bfl.submit(model, control_image=png()).status_code == 404
    assert comet.submit(model, control_image=png()).status_code == 200
    assert "one of control_image and" in message(comet.submit("flux-pro-1.0-depth"))


def test_values_are_converted_to_the_types_of_the_schema(bfl: Api) -> None:
    sent: dict[str, Any] = {"width": "512", "height": 256.0, "seed": "7", "prompt_upsampling": "on", "sparkle": "3"}
    assert bfl.submit(**sent).status_code == 200
    (job,) = bfl.emulator.stats()["jobs"]
    converted = {"width": 512, "height": 256, "seed": 7, "prompt_upsampling": True, "sparkle": "3"}
    assert job["parameters"] == {"prompt": "a red kite", **converted}
    assert job["seed"] == 7


@pytest.mark.parametrize(
    ("model", "location"),
    [
        ("flux-2-pro", ["body", "prompt"]),
        ("flux-pro-1.0-fill", ["body", "image"]),
        ("flux-tools/vto-v1", ["body", "prompt"]),
        ("flux-pro-1.0-fill-finetuned", ["body", "finetune_id"]),
    ],
)
def test_missing_required_field_is_rejected(bfl: Api, model: str, location: list[str]) -> None:
    response = bfl.http.post(f"/v1/{model}", json={})
    assert response.status_code == 422
    assert response.json()["detail"][0]["loc"] == location


def test_only_cometapi_requires_a_prompt_of_flux_1(comet: Api, bfl: Api) -> None:
    for body in ({}, {"prompt": None}):
        assert bfl.http.post("/v1/flux-pro-1.1", json=body).status_code == 200
        assert comet.http.post("/flux/v1/flux-pro-1.1", json=body).status_code == 400
    assert "body.prompt: Field required" in message(comet.http.post("/flux/v1/flux-dev", json={}))


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b'"x"', b"null", b"\xff", b"[" * 100_000])
def test_body_that_is_not_a_json_object_is_rejected(api: Api, raw: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = api.http.post(f"{api.prefix}/flux-dev", content=raw, headers=headers)
    assert response.status_code in ((400, 422) if api.gateway == "bfl" else (400,))
    assert message(response)


@pytest.mark.parametrize("raw", [b'{"seed": NaN}', b'{"seed": 1e999}', b'{"prompt": "\\ud800"}', b'{"x": Infinity}'])
def test_value_that_json_cannot_express_is_rejected(api: Api, raw: bytes) -> None:
    headers = {"content-type": "application/json"}
    response = api.http.post(f"{api.prefix}/flux-dev", content=raw, headers=headers)
    assert response.status_code == (422 if api.gateway == "bfl" else 400)
    assert "JSON decode error" in message(response)


def test_body_without_a_json_content_type_is_rejected(bfl: Api) -> None:
    for raw in (b'{"prompt": "x"}', b"\xff"):
        response = bfl.http.post("/v1/flux-dev", content=raw, headers={"content-type": "text/plain"})
        assert response.status_code == 422
        assert response.json()["detail"][0]["type"] == "model_attributes_type"


def test_missing_side_is_chosen_to_fit_the_maximum(bfl: Api) -> None:
    assert bfl.submit("flux-2-pro", width=8192).json()["output_mp"] == 4.0
