"""Several images of one request: ``seeds`` names their seeds, ``variants`` their number.

Each attempt must find the same recipes again, so no seed is random here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from airflow_provider_flux.arguments import is_unset, parse_count, parse_list
from airflow_provider_flux.client.catalogue.constraints import parse_integer
from airflow_provider_flux.client.catalogue.models import MODELS
from airflow_provider_flux.client.catalogue.validation import ALL_PARAMETERS
from airflow_provider_flux.exceptions import FluxBadRequestError
from airflow_provider_flux.receipts.recipe import derived_seed, fingerprint

MAX_VARIANTS = 100
"""Images of one request at most: more of one recipe are more likely a mistake."""
_EXCLUDED_BY = {"seed": ("seeds",), "seeds": ("seed", "variants"), "variants": ("seeds",)}
"""Which shared fields a request's own field excludes."""


def merge_fields(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request, whose own take precedence over the shared ones."""
    given = {name for name in own if not is_unset(own[name])}
    excluded = {name for field, names in _EXCLUDED_BY.items() if field in given for name in names}
    return {**{name: value for name, value in shared.items() if name not in excluded}, **own}


def take_variants(fields: dict[str, Any]) -> dict[str, Any]:
    """Take ``seeds`` and ``variants``, which the API does not know, out of a request's fields, and return them."""
    taken = {name: fields.pop(name) for name in ("seeds", "variants") if name in fields}
    return {name: value for name, value in taken.items() if not is_unset(value)}


def read_seeds(given: Mapping[str, Any], model: str, body: Mapping[str, Any]) -> list[int | None]:
    """Return the seeds of a request's images; None stands for the only image of a request that asks for no more.

    ``variants`` counts up from the request's ``seed``, if it has one; else each seed is derived from the recipe, so
    that it is the same in each attempt. Input images do not count: the same one may have another address then.

    :param given: What :func:`take_variants` has returned.
    :param body: The validated request.
    :raises FluxBadRequestError: if the values are invalid, contradict each other, or the model takes no seed.
    """
    if not given:
        return [None]
    if len(given) > 1:
        raise FluxBadRequestError("seeds and variants exclude each other; give one of them.")
    (name,) = given
    if model in MODELS and "seed" not in MODELS[model].parameters:
        raise FluxBadRequestError(
            f"{name} needs a seed, which {model} does not take; for several images, repeat the request in the list."
        )
    if name == "seeds":
        if "seed" in body:
            raise FluxBadRequestError("seed and seeds exclude each other; give one of them.")
        return [*_parse_seeds(given["seeds"])]
    number = _at_most("variants", parse_count("variants", given["variants"], minimum=1))
    if "seed" in body:
        return [body["seed"] + count for count in range(number)]
    recipe = fingerprint(model, {field: value for field, value in body.items() if not _is_image(field)})
    return [derived_seed(recipe, count) for count in range(1, number + 1)]


def _parse_seeds(value: Any) -> list[int]:
    try:
        seeds = [parse_integer(seed) for seed in parse_list(value) or ()]
    except (ValueError, TypeError, OverflowError):
        seeds = []
    if not seeds:
        raise FluxBadRequestError(f"seeds is {value!r}; it must be a list of whole numbers, such as [1, 2, 3].")
    _at_most("seeds", len(seeds))
    if twice := sorted({seed for seed in seeds if seeds.count(seed) > 1}):
        raise FluxBadRequestError(f"seeds contains {', '.join(map(str, twice))} more than once.")
    return seeds


def _at_most(name: str, number: int) -> int:
    if number > MAX_VARIANTS:
        raise FluxBadRequestError(f"{name} asks for {number} images of one request; {MAX_VARIANTS} is the maximum.")
    return number


def _is_image(name: str) -> bool:
    return name in ALL_PARAMETERS and ALL_PARAMETERS[name].type in ("image", "images")
