"""The request schema of each model, as a pydantic model that is built from the table in `models`.

The real API is a FastAPI application, so its HTTP 422 bodies are pydantic's own errors. Built from the published types,
these schemas produce the same ones.
"""

from __future__ import annotations

import re
from enum import Enum
from functools import cache, partial
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    HttpUrl,
    ValidationError,
    create_model,
    model_validator,
)
from pydantic.json_schema import SkipJsonSchema
from pydantic_core import InitErrorDetails

from airflow_provider_flux.emulator.models import MEGAPIXEL, MODELS, Parameter


@cache
def request_schema(model: str, required: tuple[str, ...] = ()) -> type[BaseModel]:
    """Return the schema of a request for `model`, a key of `MODELS`.

    :param required: fields that the dialect requires in addition to those of the model.
    """
    spec = MODELS[model]
    fields: dict[str, Any] = {
        name: _field(name, parameter, name in spec.required or name in required)
        for name, parameter in spec.parameters.items()
    }
    fields |= {name: (Annotated[Any, AfterValidator(_refuse_size), SkipJsonSchema()], None) for name in spec.refuses}
    rules: dict[str, Any] = {}
    if spec.either:
        rules["either"] = model_validator(mode="after")(partial(_check_either, names=spec.either))
    if spec.max_megapixels and not spec.fits:
        min_side = spec.parameters["width"].low or 1
        check_area = partial(_check_area, max_megapixels=spec.max_megapixels, min_side=min_side)
        rules["area"] = model_validator(mode="after")(check_area)
    config = ConfigDict(extra="forbid" if spec.strict else "ignore")
    return create_model(model, __config__=config, __validators__=rules, **fields)


def _field(name: str, parameter: Parameter, required: bool) -> tuple[Any, Any]:
    annotation = _type(name, parameter)
    if required:
        return annotation, ...
    return annotation | None if parameter.nullable else annotation, parameter.default


def _type(name: str, parameter: Parameter) -> Any:
    bounds: dict[str, Any] = {"ge": parameter.low, "le": parameter.high, "multiple_of": parameter.step}
    lengths: dict[str, Any] = {"min_length": parameter.low, "max_length": parameter.high}
    match parameter.kind:
        case "integer":
            return Annotated[int, Field(**bounds)]
        case "number":
            return Annotated[float, Field(**bounds)]
        case "boolean":
            return bool
        case "choice" if name == "output_format":
            # Published as a component of its own, which pydantic does for an Enum and not for a Literal.
            return _output_format(parameter.choices)
        case "choice" if name == "aspect_ratio":
            # Published as two alternatives: the ratios, or the constant "auto".
            return Literal[tuple(word for word in parameter.choices if word != "auto")] | Literal["auto"]
        case "choice":
            return Literal[parameter.choices]
        case "ratio":
            return Annotated[str, AfterValidator(partial(_check_ratio, limit=parameter.ratio))]
        case "url":
            # Its published length limits are those of HttpUrl itself.
            return HttpUrl
        case "images":
            return str | Annotated[list[str], Field(**lengths)]
        case "string" if parameter.high:
            return Annotated[str, Field(**lengths)]
        case _:
            return str


@cache
def _output_format(words: tuple[str, ...]) -> Any:
    return Enum("OutputFormat", {word: word for word in words}, type=str)


def _check_ratio(value: str, limit: float) -> str:
    match = re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", value, re.ASCII)
    if not match:
        raise ValueError("aspect ratio must look like '16:9'")
    width, height = int(match[1]), int(match[2])
    if max(width / height, height / width) > limit + 1e-9:
        raise ValueError("aspect ratio is too far from square")
    return value


def _refuse_size(value: Any) -> Any:
    raise ValueError("this model does not support width/height")


def _check_either(body: Any, names: tuple[str, ...]) -> Any:
    if all(getattr(body, name) is None for name in names):
        raise ValueError(f"one of {' and '.join(names)} is required")
    return body


def _check_area(body: Any, max_megapixels: float, min_side: float) -> Any:
    # The API chooses a side that is not sent. The body is invalid only if even the smallest choice is too large.
    sides = {name: getattr(body, name) for name in body.model_fields_set & {"width", "height"}}
    area = (sides.get("width") or min_side) * (sides.get("height") or min_side)
    if area > max_megapixels * MEGAPIXEL:
        error = ValueError(f"width x height must not exceed {max_megapixels:g} megapixels")
        line = InitErrorDetails(type="value_error", loc=("width",), input=sides.get("width"), ctx={"error": error})
        raise ValidationError.from_exception_data(type(body).__name__, [line])
    return body
