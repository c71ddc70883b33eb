"""The client's catalogue and the emulator's, each written from the documents alone: all differences are meant."""

from __future__ import annotations

from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any

import pytest

from airflow_provider_flux.client.catalogue import models as client
from airflow_provider_flux.client.gateways import BFL, COMETAPI
from airflow_provider_flux.emulator import dialects
from airflow_provider_flux.emulator import models as emulator

DIALECTS = {COMETAPI: dialects.COMETAPI, BFL: dialects.BFL}

# model, parameter and fact (each may hold wildcards) -> why the two say different things.
MEANT = {
    ("flux-2-*", "width", "default"): "the API chooses a size; the emulator has to draw one",
    ("flux-2-*", "height", "default"): "as for width",
    ("*", "webhook_url", "low"): "the client never sends an empty field, so needs no least length",
    ("flux-3-image", "images", "low"): "as for webhook_url",
    ("flux-pro", "", "one of"): "the API would draw from an empty prompt and bill it; its SDK refuses, and so do we",
    ("flux-dev", "", "one of"): "as for flux-pro",
    ("flux-pro-1.1*", "", "one of"): "as for flux-pro",
}


def facts_of_client(gateway: str) -> dict[tuple[str, str, str], Any]:
    facts: dict[tuple[str, str, str], Any] = {}
    for name, model in client.MODELS.items():
        facts |= {(name, "", "strict"): model.strict, (name, "", "pixels"): model.pixels}
        facts[name, "", "one of"] = set(model.one_of)
        for field, parameter in model.on(gateway).items():
            told = {
                "kind": parameter.kind,
                "low": parameter.low,
                "high": parameter.high,
                "step": parameter.step,
                "default": parameter.default,
                "choices": set(parameter.choices),
                "ratio": float(Fraction(*map(int, parameter.widest.split(":")))) if parameter.widest else None,
                "required": parameter.required,
                "forms": set(parameter.forms),
            }
            facts |= {(name, field, fact): value for fact, value in told.items()}
    return facts


def facts_of_emulator(gateway: str) -> dict[tuple[str, str, str], Any]:
    dialect = DIALECTS[gateway]
    facts: dict[tuple[str, str, str], Any] = {}
    for name, model in emulator.MODELS.items():
        pixels = model.max_megapixels and model.max_megapixels * 1024**2
        facts |= {(name, "", "strict"): model.strict, (name, "", "pixels"): pixels}
        facts[name, "", "one of"] = set(model.either)
        for field, parameter in model.parameters.items():
            forms = {"base64"} if field in dialect.base64_only else {"base64", "url"}
            told = {
                "kind": "text" if parameter.kind == "string" else parameter.kind,
                "low": parameter.low,
                "high": parameter.high,
                "step": parameter.step,
                "default": parameter.default,
                "choices": set(parameter.choices),
                "ratio": parameter.ratio if parameter.kind == "ratio" else None,
                "required": field in model.required or field in dialect.required,
                "forms": forms if parameter.kind in ("image", "images") else set(),
            }
            facts |= {(name, field, fact): value for fact, value in told.items()}
    return facts


def is_meant(difference: tuple[str, str, str], pattern: tuple[str, str, str]) -> bool:
    return all(fnmatchcase(part, wanted) for part, wanted in zip(difference, pattern, strict=True))


@pytest.mark.parametrize("gateway", [COMETAPI, BFL])
def test_all_differences_are_meant(gateway: str) -> None:
    ours, theirs = facts_of_client(gateway), facts_of_emulator(gateway)
    differences = [key for key in ours.keys() | theirs.keys() if ours.get(key, "absent") != theirs.get(key, "absent")]
    unmeant = [key for key in differences if not any(is_meant(key, pattern) for pattern in MEANT)]
    assert {key: (ours.get(key, "absent"), theirs.get(key, "absent")) for key in unmeant} == {}
    past = [pattern for pattern in MEANT if not any(is_meant(key, pattern) for key in differences)]
    assert past == []


def test_what_a_model_refuses_is_none_of_its_parameters() -> None:
    for name, model in client.MODELS.items():
        assert not model.instead.keys() & model.parameters.keys(), name
        assert set(emulator.MODELS[name].refuses) <= model.instead.keys(), name
