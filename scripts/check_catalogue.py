"""Compare the client's and the emulator's catalogue with an OpenAPI document of Black Forest Labs.

Each difference is one line: models and fields that only one side has, ranges, lengths, words, defaults, and which
fields are required. Models that generate video are left out.
"""

from __future__ import annotations

import argparse
import http.client
import json
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from airflow_provider_flux.client.catalogue.models import MODELS
from airflow_provider_flux.client.catalogue.schema import Parameter
from airflow_provider_flux.client.gateways import BFL
from airflow_provider_flux.emulator import models as emulator

Facts = dict[str, Any]
"""A fact about a field, by its keyword of JSON Schema -> the value; what is not limited is absent."""
Catalogue = dict[str, dict[str, Facts]]
"""Model -> field -> facts. The field "" is the request itself."""

_METHODS_OF_MODELS = "/v1/flux"
_LIMITS = ("minimum", "maximum", "minLength", "maxLength", "minItems", "maxItems", "multipleOf")
# Deep enough for any published schema; one that refers to itself ends there.
_MAX_DEPTH = 16


class DocumentError(Exception):
    """The document cannot be read; the message says why."""


def main(arguments: list[str] | None = None) -> int:
    """Print the drift and return the exit code: 0 without drift, 1 with drift, 2 if the document cannot be read."""
    parser = argparse.ArgumentParser(
        prog="python -m scripts.check_catalogue",
        description=__doc__,
        epilog="Exit code: 0 without a difference, 1 with one, 2 if the document cannot be read.",
    )
    parser.add_argument("document", metavar="PATH-OR-URL", help="OpenAPI document in JSON")
    location = parser.parse_args(arguments).document
    try:
        published = read_document(_load(location))
    except DocumentError as error:
        print(f"{location} {error}", file=sys.stderr)
        return 2
    lines = [
        *(f"client: {line}" for line in drift(published, client_catalogue())),
        *(f"emulator: {line}" for line in drift(published, emulator_catalogue())),
    ]
    print("\n".join(lines or ["No difference."]))
    return 1 if lines else 0


def drift(published: Catalogue, ours: Catalogue) -> Iterator[str]:
    """Yield a line for each difference between the document and a catalogue."""
    for model in sorted(published.keys() | ours.keys()):
        if model not in ours:
            yield f"{model} is missing in the catalogue"
        elif model not in published:
            yield f"{model} is not in the document"
        else:
            yield from (f"{model} {line}" for line in _drift_of_model(published[model], ours[model]))


def _drift_of_model(published: dict[str, Facts], ours: dict[str, Facts]) -> Iterator[str]:
    for field in [*published, *(name for name in ours if name not in published)]:
        if field not in ours:
            yield f"{field} is missing in the catalogue"
        elif field not in published:
            yield f"{field} is not in the document"
        else:
            theirs, own = published[field], ours[field]
            for name in sorted(name for name in theirs.keys() | own.keys() if theirs.get(name) != own.get(name)):
                yield (
                    f"{field or 'request'}: {name} is {_shown(theirs.get(name))} in the document, "
                    f"{_shown(own.get(name))} in the catalogue"
                )


def _shown(value: Any) -> str:
    return "not set" if value is None else json.dumps(value)


def client_catalogue() -> Catalogue:
    """Return the client's catalogue of the models at Black Forest Labs."""
    return {
        name: {
            "": {"additionalProperties": False} if model.forbid_extra else {},
            **{field: _facts_of_client(parameter) for field, parameter in model.parameters_for(BFL).items()},
        }
        for name, model in MODELS.items()
        if BFL in model.gateways
    }


def _facts_of_client(parameter: Parameter) -> Facts:
    return _limiting(
        {
            **_limits(parameter.type, parameter.minimum, parameter.maximum),
            "multipleOf": parameter.multiple_of,
            "enum": sorted(parameter.choices) or None,
            "default": parameter.default,
            "required": parameter.required or None,
        }
    )


def emulator_catalogue() -> Catalogue:
    """Return the emulator's catalogue of the models at Black Forest Labs."""
    return {
        name: {
            "": {"additionalProperties": False} if model.strict else {},
            **{field: _facts_of_emulator(field, parameter, model) for field, parameter in model.parameters.items()},
        }
        for name, model in emulator.MODELS.items()
        if BFL in model.dialects
    }


def _facts_of_emulator(field: str, parameter: emulator.Parameter, model: emulator.Model) -> Facts:
    # The emulator has to draw some size where the API chooses one.
    draws = field in ("width", "height") and model.fits
    return _limiting(
        {
            **_limits(parameter.kind, parameter.low, parameter.high),
            "multipleOf": parameter.step,
            "enum": sorted(parameter.choices) or None,
            "default": None if draws else parameter.default,
            "required": field in model.required or None,
        }
    )


def _limits(kind: str, low: float | None, high: float | None) -> Facts:
    lowest, highest = {
        "text": ("minLength", "maxLength"),
        "string": ("minLength", "maxLength"),
        "url": ("minLength", "maxLength"),
        "images": ("minItems", "maxItems"),
    }.get(kind, ("minimum", "maximum"))
    return {lowest: low, highest: high}


def read_document(document: Any) -> Catalogue:
    """Return the image models of an OpenAPI document.

    :raises DocumentError: if it contains none.
    """
    paths = document.get("paths") if isinstance(document, Mapping) else None
    catalogue: Catalogue = {}
    for path, item in paths.items() if isinstance(paths, Mapping) else ():
        _, prefix, name = str(path).rstrip("/").rpartition(_METHODS_OF_MODELS)
        methods = _resolve(document, item)
        if prefix and "video" not in name and isinstance(methods, Mapping) and "post" in methods:
            try:
                body = _resolve(document, _at(methods, "post", "requestBody"))
                catalogue[f"flux{name}"] = _fields(document, _json_schema(body))
            except (AttributeError, TypeError):
                raise DocumentError(f"has no valid schema for {path}.") from None
    if not catalogue:
        raise DocumentError(f"is not an OpenAPI document with paths below {_METHODS_OF_MODELS}.")
    return catalogue


def _json_schema(body: Any) -> Any:
    for media_type, content in _at(body, "content").items():
        if media_type.partition(";")[0].strip().lower() == "application/json":
            return _at(content, "schema")
    return {}


def _fields(document: Any, schema: Any) -> dict[str, Facts]:
    request = _flatten(document, schema)
    required = request.get("required", [])
    properties = request.get("properties", {})
    fields = {name: _facts(_flatten(document, field), name in required) for name, field in properties.items()}
    return {"": {"additionalProperties": False} if request.get("additionalProperties") is False else {}, **fields}


def _facts(schema: Facts, required: bool) -> Facts:
    facts = {name: schema.get(name) for name in (*_LIMITS, "default")}
    facts |= {
        "enum": sorted(word for word in schema.get("enum", []) if isinstance(word, str)) or None,
        "required": required or None,
    }
    # A size of 0 is below the documented minimum: it lets the model choose, as no size does.
    minimum, default = facts["minimum"], facts["default"]
    if isinstance(minimum, (int, float)) and isinstance(default, (int, float)) and default < minimum:
        facts["default"] = None
    return _limiting(facts)


def _flatten(document: Any, schema: Any, depth: int = 0) -> Facts:
    """Return a schema without references, combined from its alternatives; null is left out, as it is never sent."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return {}
    parts = [_resolve(document, schema)] if "$ref" in schema else []
    for keyword in ("allOf", "anyOf", "oneOf"):
        parts += schema.get(keyword) or []
    flat: Facts = {}
    for part in parts:
        _merge(flat, _flatten(document, part, depth + 1))
    own = {name: value for name, value in schema.items() if name not in ("$ref", "allOf", "anyOf", "oneOf")}
    if "const" in own:
        own["enum"] = [own["const"]]
    _merge(flat, own)
    return flat


def _merge(flat: Facts, part: Facts) -> None:
    for name, value in part.items():
        if name in ("enum", "required") and isinstance(value, list):
            flat[name] = [*flat.get(name, []), *value]
        elif name == "properties" and isinstance(value, Mapping):
            flat[name] = {**flat.get(name, {}), **value}
        else:
            flat[name] = value


def _resolve(document: Any, value: Any) -> Any:
    """Return what ``value`` refers to within the document, if it is a reference, else ``value``.

    :raises DocumentError: if it refers to nothing.
    """
    if not isinstance(value, Mapping) or "$ref" not in value:
        return value
    keys = unquote(str(value["$ref"]).removeprefix("#/")).split("/")
    target = _at(document, *(key.replace("~1", "/").replace("~0", "~") for key in keys))
    if not target:
        raise DocumentError(f"has a reference to nothing: {value['$ref']}.")
    return target


def _at(value: Any, *keys: str) -> Any:
    """Return what lies below ``keys``; an empty schema if there is nothing."""
    for key in keys:
        if not isinstance(value, Mapping) or key not in value:
            return {}
        value = value[key]
    return value


def _limiting(facts: Facts) -> Facts:
    # The client sends no empty value, so these are as good as none.
    without_effect = (("default", ""), ("minLength", 1), ("minItems", 1))
    return {name: value for name, value in facts.items() if value is not None and (name, value) not in without_effect}


def _load(location: str) -> Any:
    try:
        if location.startswith(("http://", "https://")):
            with urllib.request.urlopen(location, timeout=30) as response:
                text = response.read()
        else:
            text = Path(location).read_bytes()
    # ValueError: the URL is invalid.
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise DocumentError(f"cannot be read: {error}.") from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DocumentError(f"is not JSON: {error}.") from None


if __name__ == "__main__":
    sys.exit(main())
