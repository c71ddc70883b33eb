"""Request bodies built from what an author wrote or a template rendered, or one error that names every problem."""

from __future__ import annotations

import re
from collections import UserList
from dataclasses import replace
from decimal import Decimal
from typing import Any
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.client.catalogue.constraints import clamp, largest_size, validate_value
from airflow_provider_flux.client.catalogue.models import MODELS, accepts, output_format
from airflow_provider_flux.client.catalogue.notices import notices
from airflow_provider_flux.client.catalogue.schema import Parameter
from airflow_provider_flux.client.catalogue.validation import build_request, unknown_fields
from airflow_provider_flux.client.gateways import BFL, COMETAPI
from airflow_provider_flux.exceptions import FluxBadRequestError

BASE64 = "QUJD" * 30


def test_rendered_text_is_coerced_to_each_field_s_type() -> None:
    fields = {
        "prompt": " a kite ",
        "width": "1024",
        "height": " 768 ",
        "steps": 28.0,
        "seed": "0",
        "guidance": "2.5",
        "interval": "2",
        "prompt_upsampling": "False",
        "safety_tolerance": "6.0",
    }
    assert build_request("flux-pro", fields) == {
        "prompt": " a kite ",
        "width": 1024,
        "height": 768,
        "steps": 28,
        "seed": 0,
        "guidance": 2.5,
        "interval": 2,
        "prompt_upsampling": False,
        "safety_tolerance": 6,
    }


def test_number_keeps_its_value_in_every_type() -> None:
    seed = 2**53 + 1  # as a float it would change
    fields = {"prompt": "x", "width": Decimal(512), "seed": Decimal(seed), "guidance": Decimal("2.9")}
    assert build_request("flux-pro", fields) == {"prompt": "x", "width": 512, "seed": seed, "guidance": 2.9}
    assert "width must be a whole number" in refusal("flux-dev", {"prompt": "x", "width": Decimal("512.5")})


def test_unset_and_empty_fields_are_not_sent() -> None:
    fields: dict[str, Any] = {
        "prompt": "x",
        "image_prompt": "",
        "seed": "None",
        "width": " ",
        "webhook_url": "",
        "steps": None,
        "new": [],
        "images": UserList(),
    }
    assert build_request("flux-dev", fields) == {"prompt": "x"}


@pytest.mark.parametrize("value", [1984, 19.84])
def test_prompt_rendered_as_a_number_is_sent_as_text(value: Any) -> None:
    assert build_request("flux-dev", {"prompt": value}) == {"prompt": str(value)}


@pytest.mark.parametrize("text", ["None", "none", " NULL ", ""])
def test_number_rendered_as_none_is_not_sent(text: str) -> None:
    numbers = ("width", "height", "steps", "seed", "guidance", "safety_tolerance", "interval", "prompt_upsampling")
    assert build_request("flux-pro", {"prompt": "x", **dict.fromkeys(numbers, text)}) == {"prompt": "x"}


@pytest.mark.parametrize("model", ["flux-dev", "flux-9-unheard-of"])
@pytest.mark.parametrize("value", [{"level": "1"}, " 1 ", "None", 0, False])
def test_unknown_field_is_sent_unchanged(model: str, value: Any) -> None:
    assert build_request(model, {"prompt": "x", "sparkle": value}) == {"prompt": "x", "sparkle": value}


def test_unknown_model_gets_coerced_text_and_any_value() -> None:
    fields = {"width": "17", "steps": "many", "images": ["x"], "seed": "1", "control_image": "y", "webhook_url": "z"}
    assert build_request("flux-9-unheard-of", fields) == {**fields, "width": 17, "seed": 1}
    words = {"resolution": "4K", "output_format": " AVIF"}
    assert build_request("flux-9-unheard-of", words) == words


def test_prompt_that_reads_none_is_sent() -> None:
    assert build_request("flux-dev", {"prompt": "None"}) == {"prompt": "None"}


def test_one_error_names_every_problem() -> None:
    with pytest.raises(FluxBadRequestError) as caught:
        build_request(
            "flux-dev", {"prompt": "", "width": "wide", "seed": 1.5, "prompt_upsampling": "maybe", "guidance": "nan"}
        )
    message = str(caught.value)
    for part in ("flux-dev", "width", "'wide'", "seed", "prompt_upsampling", "guidance", "prompt is empty"):
        assert part in message
    assert "Nothing was billed" in message


@pytest.mark.parametrize("value", [True, float("inf"), "1e999", [1], {"a": 1}])
def test_value_that_is_not_a_number_is_refused(value: Any) -> None:
    with pytest.raises(FluxBadRequestError, match="guidance must be a number"):
        build_request("flux-dev", {"prompt": "x", "guidance": value})


@pytest.mark.parametrize(
    "model",
    [
        *("", None, 7, "../credits", "flux dev", "flux/dev", "flux-dev?x=1"),
        *("flux-tools/", "flux-tools/../credits", "flux-tools/a/b", "/flux-dev", "FLUX-tools/erase-v1"),
    ],
)
def test_model_name_cannot_change_the_url_path(model: Any) -> None:
    with pytest.raises(FluxBadRequestError, match="not the name of a FLUX model"):
        build_request(model, {"prompt": "x"})


def test_output_format_is_the_requested_one_or_the_model_s_default() -> None:
    assert output_format("flux-dev", {"output_format": "PNG"}) == "png"
    assert output_format("flux-dev", {}) == "jpeg"
    assert output_format("flux-kontext-max", {}) == "png"
    assert output_format("flux-tools/erase-v1", {}) == "png"
    assert output_format("flux-tools/vto-v2", {}) == "jpeg"


@pytest.mark.parametrize("model", ["flux-3-video", "flux-tools/video-upscale-v1", "flux-4-VIDEO-pro"])
def test_model_that_generates_video_is_refused(model: str) -> None:
    assert refusal(model, {"prompt": "x"}) == f"{model} generates video; this provider stores images."


def test_model_that_a_gateway_no_longer_offers_is_refused_there_only() -> None:
    assert build_request("flux-pro", {"prompt": "x"}, COMETAPI)
    assert refusal("flux-pro", {"prompt": "x"}, BFL) == (
        "flux-pro is not available at bfl, only at cometapi; choose another model, or a connection to cometapi."
    )


@pytest.mark.parametrize(
    ("model", "fields", "notice"),
    [
        ("flux-2-pro", {"width": 1440, "height": 810}, "height 810 may be rounded to a multiple of 16"),
        ("flux-2-pro", {"width": 4096, "height": 3072}, "4096 x 3072 may be resized to 4 megapixels"),
        ("flux-2-pro", {"width": 2048, "height": 2048}, None),
        ("flux-3-image", {"safety_tolerance": 5}, "not every source allows more than 4"),
        ("flux-3-image", {"safety_tolerance": 4}, None),
        ("flux-pro-1.0-fill-finetuned", {"finetune_id": "x", "image": BASE64}, "deprecated since 2025-10-31"),
        (
            "flux-tools/outpainting-v1",
            {"input_image": BASE64, "width": 64, "height": 64, "seed": 1},
            "sources disagree on whether the model takes seed",
        ),
        ("flux-9-unheard-of", {"width": 17}, None),
    ],
)
def test_what_is_only_likely_is_sent_with_a_notice(model: str, fields: dict[str, Any], notice: str | None) -> None:
    body = build_request(model, {"prompt": "x", **fields}, BFL)
    assert body == {"prompt": "x", **fields}
    assert notice in notices(model, body)[0] if notice else notices(model, body) == []


def test_uncertain_field_is_not_added_to_a_request() -> None:
    assert accepts("flux-dev", "seed")
    assert not accepts("flux-tools/outpainting-v1", "seed")


def test_fast_outpainting_takes_base64_only() -> None:
    fields = {"input_image": "https://example.com/x.png", "width": 64, "height": 64}
    assert build_request("flux-tools/outpainting-v1", fields, BFL) == fields
    assert "input_image must be an image as base64" in refusal("flux-tools/outpainting-v1", {**fields, "mode": " FAST"})


def refusal(model: str, fields: dict[str, Any], gateway: str = "bfl", strict: bool = False) -> str:
    with pytest.raises(FluxBadRequestError) as caught:
        build_request(model, fields, gateway, strict)
    return caught.value.message


@pytest.mark.parametrize(
    ("model", "fields", "text"),
    [
        ("flux-dev", {"width": 1000}, "width must be .* multiple of 32, not 1000; the nearest is 992"),
        ("flux-dev", {"width": 1008}, "the nearest is 1024"),
        ("flux-dev", {"width": "9999"}, "from 256 to 1440 .* not 9999; the nearest is 1440"),
        ("flux-2-pro", {"width": 0}, "at least 64, not 0; the nearest is 64"),
        ("flux-2-pro", {"safety_tolerance": 6}, "from 0 to 5, not 6"),
        ("flux-3-image", {"safety_tolerance": 8}, "from 0 to 7, not 8"),
        ("flux-dev", {"guidance": "1"}, "from 1.5 to 5, not 1; the nearest is 1.5"),
        ("flux-dev", {"output_format": "gif"}, "one of jpeg, png, webp, not 'gif'"),
        ("flux-pro-1.1-ultra", {"aspect_ratio": "5:2"}, "from 9:21 to 21:9, not '5:2'"),
        ("flux-pro-1.1-ultra", {"aspect_ratio": "wide"}, "a ratio such as 16:9"),
        ("flux-kontext-pro", {"aspect_ratio": "1:3"}, "from 3:7 to 7:3, not '1:3'"),
        (
            "flux-tools/outpainting-v1",
            {"width": 4096, "height": "3072"},
            "4 megapixels, not 4096 x 3072; .* is 2364 x 1773(;|$)",
        ),
        ("flux-tools/outpainting-v1", {"width": 2048, "height": 2049}, "not 2048 x 2049; .* is 2047 x 2049(;|$)"),
        ("flux-tools/outpainting-v1", {"width": 64, "height": 65552}, "not 64 x 65552; .* is 64 x 65536(;|$)"),
        ("flux-tools/outpainting-v1", {"sparkle": 1}, "sparkle is not a parameter"),
        ("flux-dev", {"user": "x" * 257}, "user must be text of at most 256 characters, not text of 257 characters"),
        (
            "flux-2-pro",
            {"steps": 20},
            r"steps is not a parameter of flux-2-pro \(flux-pro, flux-dev, .* more have it\)",
        ),
        ("flux-dev", {"raw": True}, r"\(flux-pro-1.1-ultra has it\)"),
        ("flux-kontext-pro", {"height": 512}, "height is not a parameter of flux-kontext-pro: use aspect_ratio"),
        (
            "flux-3-image",
            {"resoluton": "2k"},
            r"resoluton is not a parameter of flux-3-image \(did you mean resolution\?\)",
        ),
        ("flux-3-image", {"images": [BASE64] * 11}, "images must be a list of at most 10"),
        ("flux-dev", {"webhook_url": "ftp://example.com"}, "webhook_url must be an http"),
    ],
)
def test_problem_is_reported_with_a_valid_alternative(model: str, fields: dict[str, Any], text: str) -> None:
    assert re.search(text, refusal(model, {"prompt": "x", **fields}).removesuffix("."))


def test_each_problem_is_reported_once_and_nothing_else() -> None:
    message = refusal("flux-tools/outpainting-v1", {"width": 4095, "height": 4095, "seed": "x", "interval": 2})
    assert [problem.split()[0] for problem in message.partition(": ")[2].split("; ")] == [
        "seed",
        "interval",
        "width",
        "the",
        "input_image",
    ]


@pytest.mark.parametrize(
    ("model", "fields", "missing"),
    [
        ("flux-dev", {}, "prompt is empty, but flux-dev requires it"),
        ("flux-2-pro", {"input_image": BASE64}, "prompt is empty"),
        ("flux-pro-1.0-fill", {"prompt": "x"}, "image is empty"),
        ("flux-tools/erase-v1", {}, "image is empty, but flux-tools/erase-v1 requires it; mask is empty"),
        ("flux-pro-1.0-depth", {"prompt": "x"}, "control_image and preprocessed_image are empty"),
        ("flux-pro-1.1-ultra-finetuned", {"prompt": "x"}, "finetune_id is empty"),
    ],
)
def test_missing_field_is_named(model: str, fields: dict[str, Any], missing: str) -> None:
    assert missing in refusal(model, fields, COMETAPI)


def test_gateways_differ_in_required_prompt_and_image_encodings() -> None:
    assert build_request("flux-dev", {"image_prompt": BASE64}, "bfl")
    assert "prompt and image_prompt are empty, but flux-dev requires one of them" in refusal("flux-dev", {}, "bfl")
    assert "prompt is empty" in refusal("flux-dev", {"image_prompt": BASE64}, "cometapi")
    by_url = {"prompt": "x", "image_prompt": "https://example.com/x.png"}
    assert build_request("flux-dev", by_url, "cometapi") == by_url
    assert "image_prompt must be an image as base64" in refusal("flux-dev", by_url, "bfl")


@pytest.mark.parametrize("gateway", [COMETAPI, BFL])
@pytest.mark.parametrize(("model", "maximum"), [("flux-dev", 6), ("flux-2-max", 5), ("flux-3-image", 7)])
def test_safety_tolerance_is_limited_by_the_model_at_every_gateway(gateway: str, model: str, maximum: int) -> None:
    assert build_request(model, {"prompt": "x", "safety_tolerance": maximum}, gateway)
    assert f"from 0 to {maximum}, not {maximum + 1}" in refusal(
        model, {"prompt": "x", "safety_tolerance": maximum + 1}, gateway
    )


def test_base64_wrapped_in_lines_is_joined() -> None:
    wrapped = "\n".join(re.findall(".{1,76}", BASE64))
    assert build_request("flux-2-pro", {"prompt": "x", "input_image": f"{wrapped}\n"})["input_image"] == BASE64


@pytest.mark.parametrize(
    "images", [[BASE64], UserList([BASE64]), BASE64, f"['{BASE64}']", f'["data:image/png;base64,{BASE64}"]']
)
def test_list_of_images_may_be_any_sequence_or_text(images: Any) -> None:
    (image,) = build_request("flux-3-image", {"prompt": "x", "images": images})["images"]
    assert image.endswith(BASE64)


def test_error_quotes_neither_prompt_nor_image_nor_secret() -> None:
    private = ["A private prompt"], "private.png", {"a": "private"}, "private"
    fields = dict(zip(("prompt", "image_prompt", "webhook_secret", "webhook_url"), private, strict=True))
    assert "private" not in refusal("flux-dev", fields).lower()


def test_strict_refuses_unknown_model_and_parameter() -> None:
    message = refusal("flux-2-prp", {"widht": 64}, strict=True)
    assert "unknown model 'flux-2-prp' (did you mean flux-2-pro?)" in message
    assert "unknown parameter 'widht' (did you mean width?)" in message
    assert "did you mean width?" in refusal("flux-2-pro", {"prompt": "x", "widht": 64}, strict=True)


def test_unknown_field_warning_names_no_values() -> None:
    assert unknown_fields("flux-dev", {"prompt": "x", "seed": 1}) == []
    assert unknown_fields("flux-dev", {"sparkle": "secret"}) == ["unknown parameter 'sparkle'"]


SIDES = [Parameter("integer", 64), Parameter("integer", 64, 2040, 16), Parameter("integer", 60, 4096, 32)]


@given(
    st.integers(64, 100_000),
    st.integers(64, 100_000),
    st.sampled_from([1024**2, 2048**2]),
    st.sampled_from(SIDES),
)
def test_largest_size_fits_and_keeps_the_shape(width: int, height: int, pixels: int, side: Parameter) -> None:
    fits = largest_size(width, height, pixels, side)
    assert fits[0] * fits[1] <= pixels
    assert [validate_value(side, length) for length in fits] == [*fits]
    if 1 / 4 < width / height < 4 and side.maximum is None:
        assert fits[0] / fits[1] == pytest.approx(width / height, rel=0.05)


@given(st.integers(-5000, 5000), st.sampled_from(SIDES))
def test_nearest_number_is_valid(number: int, side: Parameter) -> None:
    nearest = clamp(side, number)
    assert validate_value(side, nearest) == nearest


@pytest.mark.parametrize("sides", [None, *SIDES])
@given(st.integers(1, 5000), st.integers(1, 5000))
def test_suggested_size_is_valid(sides: Parameter | None, width: int, height: int) -> None:
    model = "flux-tools/outpainting-v1"
    entry = MODELS[model]
    limited = entry.parameters if sides is None else {**entry.parameters, "width": sides, "height": sides}
    body = {"prompt": "x", "input_image": BASE64, "width": width, "height": height}
    with patch.dict(MODELS, {model: replace(entry, parameters=limited)}):
        try:
            build_request(model, body)
        except FluxBadRequestError as error:
            if pair := re.search(r"shape is (\d+) x (\d+)", str(error)):
                body |= {"width": pair[1], "height": pair[2]}
            body |= dict(re.findall(r"(width|height) must [^;]*; the nearest is (\d+)", str(error)))
            build_request(model, body)
