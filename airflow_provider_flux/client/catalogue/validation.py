"""The request body: built from what an author wrote or a template rendered, and validated before anything is billed.

Only what the catalogue knows is validated; other models and fields are sent unchanged.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_flux.arguments import is_blank, is_unset, parse_list
from airflow_provider_flux.client.catalogue.constraints import coerce, prompt_text, size_problem, validate_value
from airflow_provider_flux.client.catalogue.models import MODELS, check_available, check_model
from airflow_provider_flux.client.catalogue.schema import Model, Parameter
from airflow_provider_flux.client.gateways import COMETAPI
from airflow_provider_flux.exceptions import FluxBadRequestError

_SEVERAL = "asks for several images, which FluxGenerateBatchOperator generates"
_MAX_MODELS_LISTED = 6
"""Models that one message lists at most."""

ALL_PARAMETERS: dict[str, Parameter] = {
    name: parameter for model in reversed(MODELS.values()) for name, parameter in model.parameters.items()
}
"""Every parameter of any model; where models differ, as the first one has it."""


def build_request(
    model: Any,
    parameters: Mapping[str, Any],
    gateway: str = COMETAPI,
    strict: bool = False,
    problems: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the JSON body to submit: without unset and empty fields, and with text coerced to each field's type.

    Templates render to text, so ``"1024"`` becomes ``1024``, and ``"None"`` counts as unset except in the prompt. A
    prompt that is a dict or a list becomes JSON text.

    :param gateway: ``"cometapi"`` or ``"bfl"``, whose documentation differs in some fields.
    :param strict: Refuse models and parameters that the catalogue does not know instead of sending them.
    :param problems: Problems found earlier, to report with the others.
    :raises FluxBadRequestError: naming every problem; before anything is sent.
    """
    check_available(check_model(model), gateway)
    problems = [
        *problems,
        *(f"{name} {_SEVERAL}" for name in ("seeds", "variants") if parameters.get(name) is not None),
    ]
    fields = {}
    for name, value in parameters.items():
        if _is_omitted(name, value) or name in ("seeds", "variants"):
            continue
        try:
            fields[name] = prompt_text(value) if name == "prompt" else value
        except ValueError as error:
            problems.append(f"{name} {error}")
    body, found = _validate(model, MODELS[model], fields, gateway) if model in MODELS else (_coerce_known(fields), [])
    reported = tuple(f"{name} " for name in parameters if any(problem.startswith(f"{name} ") for problem in problems))
    problems += [problem for problem in found if not reported or not problem.startswith(reported)]
    problems += unknown_fields(model, fields) if strict else []
    if problems:
        prefix = f"Invalid request for {model}"
        raise FluxBadRequestError(
            f"{prefix}: {'; '.join(problems)}.", faults=[f"{prefix}: {problem}." for problem in problems]
        )
    try:
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise FluxBadRequestError(f"The parameters for {model} cannot be sent as JSON ({error}).") from None
    return body


def blank_content_problems(fields: Mapping[str, Any]) -> list[str]:
    """Return the problems of fields for the prompt or an image that are blank.

    A request without them is billed the same and makes a different image: an edit becomes an image from text.

    :param fields: The fields that the author means to send.
    """
    return [
        f"{name} is empty ({value!r}); set it, or omit the field if the model does not require it"
        if is_blank(value)
        else f"{name} has an empty item"
        for name, value in fields.items()
        if _is_content(name) and (is_blank(value) or _has_blank_item(name, value))
    ]


def _is_content(name: str) -> bool:
    return name in ("prompt", "input_image_blob_path") or _is_image(name, ALL_PARAMETERS)


def _is_image(name: str, parameters: Mapping[str, Parameter]) -> bool:
    return name in parameters and parameters[name].type in ("image", "images")


def _has_blank_item(name: str, value: Any) -> bool:
    return name != "prompt" and any(is_blank(item) for item in parse_list(value) or ())


def image_encodings(model: str, name: str, gateway: str, fields: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Return how the input image in a field may be sent with ``fields``; None if the field does not take an image."""
    parameters = parameters_of(model)
    return parameters[name].for_request(gateway, fields).encodings if _is_image(name, parameters) else None


def parameters_of(model: str) -> Mapping[str, Parameter]:
    """Return the parameters of ``model``; of an unknown one, those of all models."""
    return MODELS[model].parameters if model in MODELS else ALL_PARAMETERS


def unknown_fields(model: str, names: Iterable[str]) -> list[str]:
    """Return a phrase for each of model and fields that the catalogue does not know, with the likely intended name.

    The fields of a model that forbids extra ones are left to its own validation.
    """
    unknown = [] if model in MODELS else [f"unknown model {model!r}{_did_you_mean(model, MODELS)}"]
    if model in MODELS and MODELS[model].forbid_extra:
        return unknown
    own = parameters_of(model)
    return unknown + [
        f"unknown parameter {name!r}{_did_you_mean(name, own) or _did_you_mean(name, ALL_PARAMETERS)}"
        for name in names
        if name not in ALL_PARAMETERS
    ]


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close else ""


def _is_omitted(name: str, value: Any) -> bool:
    if value is None or (isinstance(value, (Sequence, Mapping)) and not value):
        return True
    if name not in ALL_PARAMETERS or not isinstance(value, str):
        return False
    return not value.strip() if name == "prompt" else is_unset(value)


def _coerce_known(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Coerce each field to the type that other models have for it, where possible; ranges are unknown."""
    body = {}
    for name, value in fields.items():
        try:
            body[name] = coerce(Parameter(ALL_PARAMETERS[name].type), value) if name in ALL_PARAMETERS else value
        except ValueError:
            body[name] = value
    return body


def _validate(
    model_name: str, model: Model, fields: Mapping[str, Any], gateway: str
) -> tuple[dict[str, Any], list[str]]:
    parameters = model.parameters_for(gateway, fields)
    body: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, value in fields.items():
        if name not in parameters:
            if name in ALL_PARAMETERS or model.forbid_extra:
                problems[name] = _unsupported_parameter(model_name, model, name)
            body[name] = value
            continue
        try:
            body[name] = validate_value(parameters[name], value)
        except ValueError as error:
            problems[name] = f"{name} {error}"
    if (problem := size_problem(model, fields)) is not None:
        problems = {name: other for name, other in problems.items() if name not in ("width", "height")}
        problems["size"] = problem
    return body, [*problems.values(), *_missing_fields(model_name, model, parameters, fields)]


def _unsupported_parameter(model_name: str, model: Model, name: str) -> str:
    owners = [other for other, entry in MODELS.items() if name in entry.parameters]
    more = f" and {len(owners) - _MAX_MODELS_LISTED} more" if len(owners) > _MAX_MODELS_LISTED else ""
    if name in model.alternatives:
        hint = f": {model.alternatives[name]}"
    elif owners:
        verb = "has" if len(owners) == 1 else "have"
        hint = f" ({', '.join(owners[:_MAX_MODELS_LISTED])}{more} {verb} it)"
    else:
        hint = _did_you_mean(name, model.parameters)
    return f"{name} is not a parameter of {model_name}{hint}"


def _missing_fields(
    model_name: str, model: Model, parameters: Mapping[str, Parameter], fields: Mapping[str, Any]
) -> list[str]:
    missing = [name for name, parameter in parameters.items() if parameter.required and name not in fields]
    problems = [f"{name} is empty, but {model_name} requires it" for name in missing]
    if model.any_of and not any(name in fields or name in missing for name in model.any_of):
        problems.append(f"{' and '.join(model.any_of)} are empty, but {model_name} requires one of them")
    return problems
