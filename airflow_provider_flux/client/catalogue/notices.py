"""What a request is sent in spite of: what is likely, but not certain enough to refuse the request."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_flux.client.catalogue.constraints import format_megapixels
from airflow_provider_flux.client.catalogue.models import MODELS
from airflow_provider_flux.client.catalogue.schema import Model, Parameter


def notices(model: str, body: Mapping[str, Any]) -> list[str]:
    """Return a phrase for each uncertainty of a request.

    :param model: The model's name; about an unknown one, nothing is known.
    :param body: What :func:`.validation.build_request` returned.
    """
    if model not in MODELS:
        return []
    entry = MODELS[model]
    found = [f"the model has been deprecated since {entry.deprecated_since}"] if entry.deprecated_since else []
    for name in body.keys() & entry.parameters.keys():
        found += _of_parameter(name, entry.parameters[name], body[name])
    return [*sorted(found), *_of_size(entry, body)]


def _of_parameter(name: str, parameter: Parameter, value: Any) -> Iterator[str]:
    if not parameter.is_certain:
        yield f"sources disagree on whether the model takes {name}"
    if parameter.certain_maximum is not None and value > parameter.certain_maximum:
        yield f"{name} {value} may be refused: not every source allows more than {parameter.certain_maximum:g}"
    if parameter.rounded_to and value % parameter.rounded_to:
        yield f"{name} {value} may be rounded to a multiple of {parameter.rounded_to}"


def _of_size(model: Model, body: Mapping[str, Any]) -> Iterator[str]:
    if model.resized_above and body.get("width", 0) * body.get("height", 0) > model.resized_above:
        size = f"{body['width']} x {body['height']}"
        yield f"{size} may be resized to {format_megapixels(model.resized_above)} megapixels"
