"""The comparison of the catalogues with an OpenAPI document finds every planted difference, and nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_flux.client.catalogue.models import MODELS
from airflow_provider_flux.client.catalogue.schema import Model, Parameter
from airflow_provider_flux.client.gateways import BFL
from airflow_provider_flux.emulator import models as emulator
from scripts import check_catalogue
from scripts.check_catalogue import client_catalogue, drift, emulator_catalogue, main, read_document

NULL = {"type": "null"}
SCHEMAS: dict[str, Any] = {
    "Format": {"type": "string", "enum": ["jpeg", "png"]},
    "Sized": {
        "properties": {"width": {"anyOf": [{"type": "integer", "minimum": 64, "x-new": {}}, NULL], "default": 0}},
        "required": ["width"],
    },
    "Request": {
        "allOf": [{"$ref": "#/components/schemas/Sized"}],
        "properties": {
            "prompt": {"type": "string", "maxLength": 100, "default": ""},
            "format": {"anyOf": [{"$ref": "#/components/schemas/Format"}, NULL], "default": "jpeg"},
            "ratio": {"anyOf": [{"enum": ["1:1", "2:1"]}, {"const": "auto"}]},
            "images": {"anyOf": [{"type": "string"}, {"type": "array", "minItems": 1, "maxItems": 10}]},
        },
        "required": ["prompt"],
        "additionalProperties": False,
    },
}
PARAMETERS = {
    "width": Parameter("integer", 64, required=True),
    "prompt": Parameter("text", maximum=100, required=True),
    "format": Parameter("choice", choices=("png", "jpeg"), default="jpeg"),
    "ratio": Parameter("choice", choices=("auto", "1:1", "2:1")),
    "images": Parameter("images", maximum=10),
}


def document(schema: Any = None) -> dict[str, Any]:
    body = {"content": {"application/json": {"schema": schema or {"$ref": "#/components/schemas/Request"}}}}
    names = ("/v1/flux-tools/edit-v1", "/v1/flux-3-video", "/v1/delete_finetune")
    posts = {path: {"post": {"requestBody": body}} for path in names}
    return {"paths": {**posts, "/v1/get_result": {"get": {}}}, "components": {"schemas": SCHEMAS}}


def lines(monkeypatch: pytest.MonkeyPatch, *, forbid_extra: bool = True, **changed: Parameter | None) -> list[str]:
    parameters = {name: parameter for name, parameter in (PARAMETERS | changed).items() if parameter}
    models = {"flux-tools/edit-v1": Model(parameters, 1, forbid_extra=forbid_extra)}
    monkeypatch.setattr(check_catalogue, "MODELS", models)
    return list(drift(read_document(document()), client_catalogue()))


def test_references_alternatives_and_unknown_keywords_are_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    assert lines(monkeypatch) == []


def test_every_planted_difference_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    found = lines(
        monkeypatch,
        forbid_extra=False,
        width=Parameter("integer", 16, 2048, 16),
        prompt=Parameter("text", maximum=99, required=True),
        format=Parameter("choice", choices=("png", "jpeg"), default="png"),
        ratio=Parameter("choice", choices=("auto", "1:1")),
        images=None,
        seed=Parameter("integer"),
    )
    model = "flux-tools/edit-v1"
    assert found == [
        f"{model} request: additionalProperties is false in the document, not set in the catalogue",
        f"{model} width: maximum is not set in the document, 2048 in the catalogue",
        f"{model} width: minimum is 64 in the document, 16 in the catalogue",
        f"{model} width: multipleOf is not set in the document, 16 in the catalogue",
        f"{model} width: required is true in the document, not set in the catalogue",
        f"{model} prompt: maxLength is 100 in the document, 99 in the catalogue",
        f'{model} format: default is "jpeg" in the document, "png" in the catalogue',
        f'{model} ratio: enum is ["1:1", "2:1", "auto"] in the document, ["1:1", "auto"] in the catalogue',
        f"{model} images is missing in the catalogue",
        f"{model} seed is not in the document",
    ]


OFFERED = [name for name, model in MODELS.items() if BFL in model.gateways]
EMULATED = [name for name, model in emulator.MODELS.items() if BFL in model.dialects]


@pytest.mark.parametrize(("catalogue", "offered"), [(client_catalogue, OFFERED), (emulator_catalogue, EMULATED)])
def test_both_catalogues_are_compared_with_the_models_of_one_vendor(
    catalogue: Callable[[], check_catalogue.Catalogue], offered: list[str]
) -> None:
    found = list(drift(read_document(document()), catalogue()))
    assert "flux-tools/edit-v1 is missing in the catalogue" in found
    assert sorted(line.split()[0] for line in found) == sorted([*offered, "flux-tools/edit-v1"])


def test_exit_code_tells_drift_from_an_unreadable_document(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "openapi.json"
    file.write_text(json.dumps(document()))
    assert main([str(file)]) == 1
    assert "client: flux-tools/edit-v1 is missing" in capsys.readouterr().out
    same = {"flux-tools/edit-v1": Model(PARAMETERS, 1, forbid_extra=True)}
    monkeypatch.setattr(check_catalogue, "MODELS", same)
    monkeypatch.setattr(check_catalogue, "emulator_catalogue", client_catalogue)
    assert (main([str(file)]), capsys.readouterr().out) == (0, "No difference.\n")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("<html>", "is not JSON"),
        ("[]", "is not an OpenAPI document"),
        (json.dumps(document({"properties": [1]})), "has no valid schema for /v1/flux-tools/edit-v1"),
        (None, "cannot be read"),
    ],
)
def test_unreadable_document_is_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], text: str | None, problem: str
) -> None:
    file = tmp_path / "openapi.json"
    if text is not None:
        file.write_text(text)
    assert main([str(file)]) == 2
    assert problem in capsys.readouterr().err
    assert main(["http://127.0.0.1:9/openapi.json"]) == 2


def test_a_document_may_refer_to_bodies_and_paths_and_allow_null(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_catalogue, "MODELS", {"flux-tools/edit-v1": Model(PARAMETERS, 1, forbid_extra=True)})
    nullable = {**SCHEMAS, "Format": {"enum": ["jpeg", "png", None]}}
    body = {"content": {"application/json; charset=utf-8": {"schema": {"$ref": "#/components/schemas/Request"}}}}
    components = {"schemas": nullable, "requestBodies": {"a/b c": body}}
    item = {"post": {"requestBody": {"$ref": "#/components/requestBodies/a~1b%20c"}}}
    whole = {
        "paths": {"/v1/flux-tools/edit-v1/": {"$ref": "#/items/0"}},
        "components": components,
        "items": {"0": item},
    }
    assert list(drift(read_document(whole), client_catalogue())) == []


def test_a_reference_to_nothing_is_no_drift() -> None:
    with pytest.raises(check_catalogue.DocumentError, match="has a reference to nothing: #/components/schemas/Lost"):
        read_document(document({"$ref": "#/components/schemas/Lost"}))
