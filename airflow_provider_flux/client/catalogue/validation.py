"""What an author wrote, or a template rendered, becomes a request body: checked before money is spent.

What the catalogue knows is checked; what it does not know passes through unchanged.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from airflow_provider_flux.arguments import is_blank, parse_list
from airflow_provider_flux.client.catalogue.constraints import parse, prompt_text, read, too_large
from airflow_provider_flux.client.catalogue.models import MODELS, Model, Parameter, check_model
from airflow_provider_flux.client.gateways import COMETAPI
from airflow_provider_flux.exceptions import FluxBadRequestError

_NOTHING = ("", "none", "null")
_NAMED = 6
"""How many models a message names at most."""

KNOWN: dict[str, Parameter] = {
    name: parameter for model in reversed(MODELS.values()) for name, parameter in model.parameters.items()
}
"""Every parameter that any model has."""


def prepare(
    model: Any,
    parameters: Mapping[str, Any],
    gateway: str = COMETAPI,
    strict: bool = False,
    problems: Iterable[str] = (),
) -> dict[str, Any]:
    """Return the JSON body to submit: unset and empty fields left out, text read as what the API takes.

    Templates render to text, so ``"1024"`` becomes ``1024``, and ``"None"`` counts as unset where the
    parameter is not the prompt. A prompt that is a dict or a list becomes JSON text.

    :param gateway: ``"cometapi"`` or ``"bfl"``; their documents differ here and there.
    :param strict: Refuse a model or a parameter that the catalogue does not know, rather than pass it on.
    :param problems: What is known to be wrong already, to be told with the rest.
    :raises FluxBadRequestError: naming everything that is wrong at once, before anything is sent.
    """
    check_model(model)
    problems, given = list(problems), {}
    for name, value in parameters.items():
        if _is_unset(name, value):
            continue
        try:
            given[name] = prompt_text(value) if name == "prompt" else value
        except ValueError as error:
            problems.append(f"{name} {error}")
    if model in MODELS:
        body, wrong = _check(model, MODELS[model], given, gateway)
    else:
        body, wrong = _read_what_can_be_read(given), []
    named = tuple(f"{name} " for name in parameters if any(said.startswith(f"{name} ") for said in problems))
    wrong = [said for said in wrong if not named or not said.startswith(named)]
    wrong = [*problems, *wrong, *(unknown_fields(model, given) if strict else [])]
    if wrong:
        cannot = f"Cannot ask {model} for an image"
        faults = [f"{cannot}: {fault}." for fault in wrong]
        raise FluxBadRequestError(f"{cannot}: {'; '.join(wrong)}.", faults=faults)
    try:
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError) as error:
        raise FluxBadRequestError(f"The parameters for {model} cannot be sent as JSON ({error}).") from None
    return body


def left_empty(fields: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with those fields that name what the image is made of, and hold nothing.

    A request without them costs as much and makes another image: an edit becomes an image from text.

    :param fields: What was meant to be sent; a field that is to be left out is not in it.
    """
    return [
        f"{name} is empty ({value!r}): leave it out to send none" if is_blank(value) else f"{name} has an empty item"
        for name, value in fields.items()
        if _is_content(name) and (is_blank(value) or _has_blank_item(name, value))
    ]


def _is_content(name: str) -> bool:
    return name in ("prompt", "input_image_blob_path") or (name in KNOWN and KNOWN[name].kind in ("image", "images"))


def _has_blank_item(name: str, value: Any) -> bool:
    return name != "prompt" and any(is_blank(item) for item in parse_list(value) or ())


def image_forms(model: str, name: str, gateway: str) -> tuple[str, ...] | None:
    """Return how an input image of this name may be sent, the gateway's own word first; None if the model has none."""
    parameter = (MODELS[model].parameters if model in MODELS else KNOWN).get(name)
    if parameter is None or parameter.kind not in ("image", "images"):
        return None
    return parameter.on(gateway).forms


def unknown_fields(model: str, names: Iterable[str]) -> list[str]:
    """Say which of model and parameters the catalogue does not know, and what was perhaps meant."""
    said = [] if model in MODELS else [f"the model {model} is not known here{_did_you_mean(model, MODELS)}"]
    if model in MODELS and MODELS[model].strict:
        return said
    own = MODELS[model].parameters if model in MODELS else KNOWN
    return said + [
        f"{name} is not known here{_did_you_mean(name, own) or _did_you_mean(name, KNOWN)}"
        for name in names
        if name not in KNOWN
    ]


def _did_you_mean(name: str, names: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close else ""


def _is_unset(name: str, value: Any) -> bool:
    if value is None or (isinstance(value, (Sequence, Mapping)) and not value):
        return True
    if name not in KNOWN or not isinstance(value, str):
        return False
    return not value.strip() or (name != "prompt" and value.strip().lower() in _NOTHING)


def _read_what_can_be_read(given: Mapping[str, Any]) -> dict[str, Any]:
    """Read text as the parameter of that name is read with other models, without their ranges."""
    body = {}
    for name, value in given.items():
        try:
            body[name] = parse(Parameter(KNOWN[name].kind), value) if name in KNOWN else value
        except ValueError:
            body[name] = value
    return body


def _check(model: str, known: Model, given: Mapping[str, Any], gateway: str) -> tuple[dict[str, Any], list[str]]:
    own = known.on(gateway)
    body: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for name, value in given.items():
        if name not in own:
            if name in KNOWN or known.strict:
                problems[name] = _foreign(model, known, name)
            body[name] = value
            continue
        try:
            body[name] = read(own[name], value)
        except ValueError as error:
            problems[name] = f"{name} {error}"
    if (size := too_large(known, given)) is not None:
        problems = {name: said for name, said in problems.items() if name not in ("width", "height")}
        problems["size"] = size
    return body, [*problems.values(), *_missing(model, known, own, given)]


def _foreign(model: str, known: Model, name: str) -> str:
    owners = [other for other, what in MODELS.items() if name in what.parameters]
    more = f" and {len(owners) - _NAMED} more" if len(owners) > _NAMED else ""
    if name in known.instead:
        hint = f": {known.instead[name]}"
    elif owners:
        hint = f" ({', '.join(owners[:_NAMED])}{more} {'has' if len(owners) == 1 else 'have'} it)"
    else:
        hint = _did_you_mean(name, known.parameters)
    return f"{name} is not a parameter of {model}{hint}"


def _missing(model: str, known: Model, own: Mapping[str, Parameter], given: Mapping[str, Any]) -> list[str]:
    missing = [name for name, parameter in own.items() if parameter.required and name not in given]
    said = [f"{name} is empty, and {model} needs it" for name in missing]
    if known.one_of and not any(name in given or name in missing for name in known.one_of):
        said.append(f"{' and '.join(known.one_of)} are empty, and {model} needs one of them")
    return said
