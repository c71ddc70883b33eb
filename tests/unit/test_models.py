"""What an author wrote, or a template rendered, becomes a request body."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_flux.client.errors import FluxBadRequestError
from airflow_provider_flux.client.models import output_format, prepare


def test_rendered_text_is_read_as_what_the_api_takes() -> None:
    asked = {
        "prompt": " a kite ",
        "width": "1024",
        "height": " 768 ",
        "steps": 28.0,
        "seed": "0",
        "guidance": "2.5",
        "interval": "2",
        "prompt_upsampling": "False",
        "raw": "yes",
        "safety_tolerance": "6.0",
    }
    assert prepare("flux-dev", asked) == {
        "prompt": " a kite ",
        "width": 1024,
        "height": 768,
        "steps": 28,
        "seed": 0,
        "guidance": 2.5,
        "interval": 2,
        "prompt_upsampling": False,
        "raw": True,
        "safety_tolerance": 6,
    }


def test_unset_and_empty_fields_are_not_sent() -> None:
    asked: dict[str, Any] = {
        "prompt": "x",
        "image_prompt": "",
        "seed": "None",
        "width": " ",
        "webhook_url": "",
        "steps": None,
        "new": [],
    }
    assert prepare("flux-dev", asked) == {"prompt": "x"}


def test_what_is_not_known_passes_through() -> None:
    assert prepare("flux-9-unheard-of", {"prompt": "x", "sparkle": {"level": "1"}})["sparkle"] == {"level": "1"}


def test_a_word_that_looks_unset_is_a_prompt_all_the_same() -> None:
    assert prepare("flux-dev", {"prompt": "None"}) == {"prompt": "None"}


def test_every_wrong_value_is_named_at_once() -> None:
    with pytest.raises(FluxBadRequestError) as caught:
        prepare(
            "flux-dev", {"prompt": "", "width": "wide", "seed": 1.5, "prompt_upsampling": "maybe", "guidance": "nan"}
        )
    said = str(caught.value)
    for part in ("flux-dev", "width", "'wide'", "seed", "prompt_upsampling", "guidance", "prompt is empty"):
        assert part in said
    assert "Nothing was paid" in said


@pytest.mark.parametrize("value", [True, float("inf"), "1e999", [1], {"a": 1}])
def test_values_that_are_no_numbers(value: Any) -> None:
    with pytest.raises(FluxBadRequestError, match="guidance must be a number"):
        prepare("flux-dev", {"prompt": "x", "guidance": value})


@pytest.mark.parametrize("image", ["image_prompt", "input_image", "input_image_2", "image", "control_image"])
def test_an_image_may_stand_for_the_prompt(image: str) -> None:
    assert prepare("flux-dev", {image: "https://example.com/x.png"})


@pytest.mark.parametrize("model", ["", None, 7, "../credits", "flux dev", "flux/dev", "flux-dev?x=1"])
def test_a_model_name_cannot_leave_its_place_in_the_url(model: Any) -> None:
    with pytest.raises(FluxBadRequestError, match="not the name of a FLUX model"):
        prepare(model, {"prompt": "x"})


def test_output_format_is_the_asked_one_or_the_model_s_own() -> None:
    assert output_format("flux-dev", {"output_format": "PNG"}) == "png"
    assert output_format("flux-dev", {}) == "jpeg"
    assert output_format("flux-kontext-max", {}) == "png"
