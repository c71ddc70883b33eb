"""The command ``models``."""

from __future__ import annotations

import argparse
import csv
import io
import re

from airflow_provider_flux.client.catalogue.models import MODELS
from airflow_provider_flux.client.catalogue.prices import PRICES, PerImage, PerMegapixel, PerResolution, Price
from airflow_provider_flux.client.catalogue.schema import Model

_HEADER = ("model", "credits", "gateways", "deprecated since", "parameters")
_COMMON = ("webhook_url", "webhook_secret", "user")
"""Parameters of almost every model, which would only make the lines longer."""


def run(arguments: argparse.Namespace) -> str:
    """Return one line for each model."""
    from airflow_provider_flux.costs.formats import format_table

    rows = [
        (name, _price(PRICES.get(name)), " ".join(model.gateways), model.deprecated_since or "", _parameters(model))
        for name, model in MODELS.items()
        if arguments.gateway in (None, *model.gateways)
    ]
    if not arguments.csv:
        return format_table(_HEADER, rows, left=len(_HEADER))
    file = io.StringIO()
    csv.writer(file, lineterminator="\n").writerows([[name.replace(" ", "_") for name in _HEADER], *rows])
    return file.getvalue()


def _price(price: Price | None) -> str:
    match price:
        case PerImage():
            return f"{price.credits:g}"
        case PerMegapixel():
            return f"{price.first:g} + {price.further:g}/MP"
        case PerResolution():
            return ", ".join(f"{credits:g} ({name})" for name, credits in price.credits.items())
        case _:
            return "unknown"


def _parameters(model: Model) -> str:
    """Return the names, the required ones with a star, a numbered series as one."""
    names = [name for name in model.parameters if name not in _COMMON and not re.search(r"_\d$", name)]
    return " ".join(_with_series(name, model) + "*" * model.parameters[name].required for name in names)


def _with_series(name: str, model: Model) -> str:
    numbers = [found[1] for other in model.parameters if (found := re.fullmatch(rf"{name}_(\d)", other))]
    return f"{name}..{numbers[-1]}" if numbers else name
