"""The client's catalogue and the emulator's, each written from the documentation alone, agree but for known cases."""

from __future__ import annotations

from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

import pytest

from airflow_provider_flux.client.catalogue import models as client
from airflow_provider_flux.client.catalogue.prices import PRICES, PerMegapixel, PerResolution
from airflow_provider_flux.client.gateways import BFL, COMETAPI
from airflow_provider_flux.emulator import dialects
from airflow_provider_flux.emulator import models as emulator

GATEWAYS = {COMETAPI: dialects.COMETAPI, BFL: dialects.BFL}

# model, parameter and fact (each may contain wildcards) -> why the two differ.
INTENDED = {
    ("flux-2-*", "width", "default"): "the API chooses a size; the emulator needs one",
    ("flux-2-*", "height", "default"): "as for width",
    ("*", "webhook_url", "minimum"): "the client never sends an empty field, so it needs no minimum length",
    ("flux-2-klein-*-finetuned", "finetune_strength", "default"): "no source has it; the emulator needs one",
    ("*", "user", "minimum"): "as for webhook_url",
    ("flux-3-image*", "images", "minimum"): "as for webhook_url: an empty list is not sent",
    ("flux-3-image*", "", "resized above"): "a limit of what the emulator draws",
    ("flux-tools/vto-*", "", "resized above"): "the emulator sizes the image by the person's, the client sends no size",
    ("flux-3-image-klein", "", "forbid extra"): "no source has it; the emulator is strict as for flux-3-image",
    ("flux-pro", "", "any of"): "the API accepts an empty prompt and bills it; its SDK and this client refuse it",
    ("flux-dev", "", "any of"): "as for flux-pro",
    ("flux-pro-1.1*", "", "any of"): "as for flux-pro",
}


def facts_of_client(gateway: str) -> dict[tuple[str, str, str], Any]:
    facts: dict[tuple[str, str, str], Any] = {}
    for name, model in client.MODELS.items():
        facts |= {
            (name, "", "forbid extra"): model.forbid_extra,
            (name, "", "pixels"): model.max_pixels,
            (name, "", "resized above"): model.resized_above,
            (name, "", "input pixels"): model.inputs.max_pixels,
            (name, "", "input side"): model.inputs.min_side,
            (name, "", "any of"): set(model.any_of),
            (name, "", "gateways"): set(model.gateways),
        }
        for field, parameter in model.parameters_for(gateway).items():
            widest = parameter.max_aspect_ratio
            values = {
                "type": parameter.type,
                "minimum": parameter.minimum,
                "maximum": parameter.maximum or parameter.certain_maximum,
                "rounded to": parameter.rounded_to,
                "multiple of": parameter.multiple_of,
                "default": parameter.default,
                "choices": set(parameter.choices),
                "ratio": float(Fraction(*map(int, widest.split(":")))) if widest else None,
                "required": parameter.required,
                "encodings": set(parameter.encodings),
            }
            facts |= {(name, field, fact): value for fact, value in values.items()}
    return facts


def facts_of_emulator(gateway: str) -> dict[tuple[str, str, str], Any]:
    dialect = GATEWAYS[gateway]
    facts: dict[tuple[str, str, str], Any] = {}
    for name, model in emulator.MODELS.items():
        pixels = model.max_megapixels and model.max_megapixels * 1024**2
        facts |= {
            (name, "", "forbid extra"): model.strict,
            (name, "", "pixels"): None if model.fits else pixels,
            (name, "", "resized above"): pixels if model.fits else None,
            (name, "", "input pixels"): model.max_input_pixels,
            (name, "", "input side"): model.min_input_side,
            (name, "", "any of"): set(model.either),
            (name, "", "gateways"): set(model.dialects),
        }
        for field, parameter in model.parameters.items():
            encodings = {"base64"} if field in dialect.base64_only and not model.urls else {"base64", "url"}
            values = {
                "type": "text" if parameter.kind == "string" else parameter.kind,
                "minimum": parameter.low,
                "maximum": parameter.high,
                "rounded to": model.grid if model.grid > 1 and field in ("width", "height") else None,
                "multiple of": parameter.step,
                "default": parameter.default,
                "choices": set(parameter.choices),
                "ratio": parameter.ratio if parameter.kind == "ratio" else None,
                "required": field in model.required or field in dialect.required(name),
                "encodings": encodings if parameter.kind in ("image", "images") else set(),
            }
            facts |= {(name, field, fact): value for fact, value in values.items()}
    return facts


def is_intended(difference: tuple[str, str, str], pattern: tuple[str, str, str]) -> bool:
    return all(fnmatchcase(part, wanted) for part, wanted in zip(difference, pattern, strict=True))


def test_both_catalogues_have_the_same_models_and_parameters() -> None:
    ours, theirs = (
        {*models, *(f"{name}: {field}" for name, model in models.items() for field in model.parameters)}
        for models in (client.MODELS, emulator.MODELS)
    )
    assert sorted(ours - theirs) == [], "missing in emulator/models.py"
    assert sorted(theirs - ours) == [], "missing in client/catalogue/"


@pytest.mark.parametrize("gateway", [COMETAPI, BFL])
def test_client_and_emulator_catalogues_agree(gateway: str) -> None:
    ours, theirs = facts_of_client(gateway), facts_of_emulator(gateway)
    differences = [key for key in ours.keys() & theirs.keys() if ours[key] != theirs[key]]
    lines = [
        f"{' '.join(filter(None, key))}: {ours[key]!r} in client/catalogue/, {theirs[key]!r} in emulator/models.py"
        for key in sorted(differences)
        if not any(is_intended(key, pattern) for pattern in INTENDED)
    ]
    assert lines == [], "\n".join(["correct one of them, or add it to INTENDED with a reason:", *lines])
    outdated = [pattern for pattern in INTENDED if not any(is_intended(key, pattern) for key in differences)]
    assert outdated == [], "no longer different: delete it from INTENDED"


@pytest.mark.parametrize("model", PRICES)
def test_the_emulator_charges_the_published_price(model: str) -> None:
    price, emulated = PRICES[model], emulator.MODELS[model]
    if isinstance(price, PerResolution):
        # Of a resolution without a published price, the emulator's is a guess.
        charged = {resolution: emulated.tiers.get(resolution, emulated.price) for resolution in price.credits}
        assert charged == price.credits
    elif isinstance(price, PerMegapixel):
        assert (emulated.price, emulated.per_mp) == (price.first, price.further)
    else:
        assert (emulated.price, emulated.per_mp) == (price.credits_of({}, None), 0)


def test_no_model_takes_a_parameter_that_it_names_an_alternative_for() -> None:
    for name, model in client.MODELS.items():
        assert not model.alternatives.keys() & model.parameters.keys(), name
        refused = emulator.MODELS[name].refuses if name in emulator.MODELS else ()
        assert set(refused) <= model.alternatives.keys(), name
