"""What is accepted and what is refused, and that a refusal names the field and makes no job."""

from __future__ import annotations

import base64
import io
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from .conftest import Api, message


def png(width: int = 300, height: int = 256) -> str:
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "png")
    return base64.b64encode(file.getvalue()).decode()


WRONG: list[tuple[str, str, Any, str]] = [
    ("flux-dev", "width", "1024", "int_type"),
    ("flux-dev", "width", True, "int_type"),
    ("flux-dev", "width", 1024.0, "int_type"),
    ("flux-dev", "width", None, "int_type"),
    ("flux-dev", "width", 1000, "multiple_of"),
    ("flux-dev", "width", 224, "greater_than_equal"),
    ("flux-dev", "height", 1472, "less_than_equal"),
    ("flux-dev", "seed", "1", "int_type"),
    ("flux-dev", "steps", 51, "less_than_equal"),
    ("flux-dev", "guidance", "3", "float_type"),
    ("flux-dev", "guidance", 5.1, "less_than_equal"),
    ("flux-dev", "prompt", 5, "string_type"),
    ("flux-dev", "prompt_upsampling", 1, "bool_type"),
    ("flux-dev", "safety_tolerance", 7, "less_than_equal"),
    ("flux-dev", "safety_tolerance", "2", "int_type"),
    ("flux-dev", "output_format", "gif", "enum"),
    ("flux-dev", "webhook_url", "", "string_too_short"),
    ("flux-dev", "webhook_url", "https://example.com/" + "x" * 2083, "string_too_long"),
    ("flux-dev", "webhook_url", "example.com", "url_parsing"),
    ("flux-dev", "webhook_url", "http://[", "url_parsing"),
    ("flux-dev", "image_prompt", 1, "string_type"),
    ("flux-pro", "interval", 0.5, "greater_than_equal"),
    ("flux-pro-1.1-ultra", "aspect_ratio", "22:9", "value_error"),
    ("flux-pro-1.1-ultra", "aspect_ratio", "wide", "value_error"),
    ("flux-pro-1.1-ultra", "aspect_ratio", "0:1", "value_error"),
    ("flux-kontext-pro", "aspect_ratio", "5:1", "value_error"),
    ("flux-kontext-pro", "width", 1024, "value_error"),
    ("flux-2-pro", "prompt", None, "string_type"),
    ("flux-2-pro", "width", 0, "greater_than_equal"),
    ("flux-2-pro", "width", 1000, "multiple_of"),
    ("flux-2-pro", "width", 65552, "value_error"),
    ("flux-2-pro", "safety_tolerance", 6, "less_than_equal"),
    ("flux-2-flex", "guidance", 1, "greater_than_equal"),
    ("flux-3-image", "safety_tolerance", 5, "less_than_equal"),
    ("flux-3-image", "seed", 1, "extra_forbidden"),
    ("flux-3-image", "aspect_ratio", "3:1", "enum"),
    ("flux-3-image", "resolution", "8k", "enum"),
    ("flux-3-image", "images", "x", "list_type"),
    ("flux-3-image", "images", ["https://example.com/a.png"] * 11, "too_long"),
]


@pytest.mark.parametrize(("model", "field", "value", "type_"), WRONG)
def test_wrong_values(bfl: Api, model: str, field: str, value: Any, type_: str) -> None:
    answer = bfl.submit(model, **{field: value})
    assert answer.status_code == 422
    (entry,) = answer.json()["detail"]
    assert (entry["loc"], entry["type"]) == (["body", field], type_)
    assert entry.keys() == {"loc", "msg", "type", "input"}
    assert bfl.emulator.stats()["submits"] == 0


def test_cometapi_says_the_same_in_its_envelope(comet: Api) -> None:
    answer = comet.submit("flux-kontext-pro", width=1024, seed="1")
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "invalid_request"
    assert "does not support width/height" in message(answer)
    assert "body.seed: Input should be a valid integer" in message(answer)


ACCEPTED: list[tuple[str, dict[str, Any]]] = [
    ("flux-dev", {"negative_prompt": "unknown fields are ignored", "seed": None, "width": 1440}),
    ("flux-dev", {"steps": 50, "guidance": 5, "webhook_url": None, "prompt": "Grüße 한국 \U0001f600"}),
    ("flux-pro", {"interval": 1.5, "seed": -(2**70)}),
    ("flux-pro-1.1-ultra", {"aspect_ratio": "9:21", "raw": True, "width": "ignored"}),
    ("flux-pro-1.1-ultra-finetuned", {"finetune_id": "org/x", "finetune_strength": 2}),
    ("flux-kontext-max", {"aspect_ratio": None, "input_image": "https://example.com/a.png"}),
    ("flux-pro-1.0-expand", {"image": f"data:image/png;base64,{png()}", "left": 40}),
    ("flux-pro-1.0-depth", {"preprocessed_image": png()}),
    ("flux-2-pro", {"width": None, "height": 1040, "input_image_8": png()}),
    ("flux-2-klein-4b", {"input_image_8": "is no parameter of klein"}),
    ("flux-3-image", {"images": [png(), "https://example.com/a.png"], "resolution": "768sq", "version": "latest"}),
]


@pytest.mark.parametrize(("model", "parameters"), ACCEPTED)
def test_right_values(api: Api, model: str, parameters: dict[str, Any]) -> None:
    answer = api.submit(model, **parameters)
    assert answer.status_code == 200, answer.text


@pytest.mark.parametrize(
    ("model", "missing"),
    [
        ("flux-2-pro", ["body", "prompt"]),
        ("flux-pro-1.0-fill", ["body", "image"]),
        ("flux-pro-1.0-canny", ["body"]),
        ("flux-pro-1.0-fill-finetuned", ["body", "finetune_id"]),
    ],
)
def test_required_fields(bfl: Api, model: str, missing: list[str]) -> None:
    answer = bfl.http.post(f"/v1/{model}", json={})
    assert answer.status_code == 422
    assert answer.json()["detail"][0]["loc"] == missing


def test_only_cometapi_demands_a_prompt_of_flux_1(comet: Api, bfl: Api) -> None:
    assert bfl.http.post("/v1/flux-dev", json={"prompt": None}).status_code == 200
    assert comet.http.post("/flux/v1/flux-dev", json={"prompt": None}).status_code == 400
    answer = comet.http.post("/flux/v1/flux-dev", json={})
    assert answer.status_code == 400
    assert "body.prompt: Field required" in message(answer)


@pytest.mark.parametrize(
    "raw",
    [
        *(b"", b"{", b"[]", b'"x"', b"null", b"\xff", b"[" * 100_000),
        *(b'{"seed": NaN}', b'{"seed": 1e999}', b'{"prompt": "\\ud800"}'),
    ],
)
def test_a_body_that_is_no_json_object(api: Api, raw: bytes) -> None:
    headers = {"content-type": "application/json"}
    answer = api.http.post(f"{api.prefix}/flux-dev", content=raw, headers=headers)
    assert answer.status_code == (422 if api.gateway == "bfl" else 400)
    assert api.http.post(f"{api.prefix}/flux-dev", content=b'{"prompt": "x"}').status_code in (400, 422)


@pytest.mark.parametrize("value", ["", "not base64", base64.b64encode(b"no image").decode(), png()[:60]])
@pytest.mark.parametrize(("model", "field"), [("flux-dev", "image_prompt"), ("flux-3-image", "images")])
def test_input_images_must_be_images(api: Api, model: str, field: str, value: str) -> None:
    answer = api.submit(model, **{field: [value] if field == "images" else value})
    assert answer.status_code == 400
    assert field in message(answer)


def test_where_base64_is_wanted_a_url_is_refused(comet: Api, bfl: Api) -> None:
    url = "https://example.com/a.png"
    assert bfl.submit("flux-dev", image_prompt=url).status_code == 400
    assert comet.submit("flux-dev", image_prompt=url).status_code == 200
    assert comet.submit("flux-pro-1.0-fill", image=url).status_code == 400


def test_input_images_have_a_limit(bfl: Api) -> None:
    answer = bfl.submit("flux-2-pro", input_image=png(5000, 4016))
    assert answer.status_code == 400
    assert "20 megapixels" in message(answer)


@pytest.mark.parametrize("size", [(255, 512), (512, 255)])
@pytest.mark.parametrize(
    ("model", "field"), [("flux-dev", "image_prompt"), ("flux-pro-1.0-fill", "image"), ("flux-3-image", "images")]
)
def test_input_images_have_a_least_side(api: Api, model: str, field: str, size: tuple[int, int]) -> None:
    image = png(*size)
    answer = api.submit(model, **{field: [image] if field == "images" else image})
    assert answer.status_code == 400
    assert f"{field}: each side must have at least 256 pixels" in message(answer)


def test_a_mask_has_the_size_of_its_image(api: Api) -> None:
    image, mask = png(512, 300), png(300, 512)
    answer = api.submit("flux-pro-1.0-fill", image=image, mask=mask)
    assert answer.status_code == 400
    assert "mask: must have the same size as image" in message(answer)
    assert api.submit("flux-pro-1.0-fill", image=image, mask=image).status_code == 200


def test_a_photo_that_is_stored_on_its_side_takes_an_upright_mask(api: Api) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (512, 300)).save(file, "JPEG", exif=exif)
    photo = base64.b64encode(file.getvalue()).decode()
    assert api.submit("flux-pro-1.0-fill", image=photo, mask=png(300, 512)).status_code == 200
    assert api.submit("flux-pro-1.0-fill", image=photo, mask=png(512, 300)).status_code == 400


def test_a_long_text_in_a_png_is_no_fault(api: Api) -> None:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("workflow", "x" * 2_000_000, zip=True)
    Image.new("RGB", (300, 300)).save(file, "PNG", pnginfo=info)
    data = file.getvalue()
    for given, status in ((data, 200), (data[:-20], 400)):
        answer = api.submit("flux-2-pro", input_image=base64.b64encode(given).decode())
        assert answer.status_code == status


def test_a_side_that_is_not_given_is_chosen_to_fit(bfl: Api) -> None:
    assert bfl.submit("flux-2-pro", width=8192).json()["output_mp"] == 4.0
