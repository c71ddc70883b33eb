"""The documentation's table of models and parameters, from the client's catalogue."""

from __future__ import annotations

import re
from itertools import groupby
from operator import itemgetter

from airflow_provider_flux.client.catalogue.constraints import format_megapixels
from airflow_provider_flux.client.catalogue.models import MODELS
from airflow_provider_flux.client.catalogue.schema import Model, Parameter
from airflow_provider_flux.client.gateways import BFL, COMETAPI

# Documented once above the table; a row says which of them its models do not take.
COMMON = ("seed", "webhook_url", "webhook_secret", "user")


def table() -> str:
    """Return the table: one row for all models with the same parameters."""
    rows: dict[str, list[str]] = {}
    for name, model in MODELS.items():
        cells = f"{_cell(model)} | [{model.source.checked_on}]({model.source.url})"
        rows.setdefault(cells, []).append(f"`{name}`")
    lines = ["| model | parameters | checked on, source |", "|---|---|---|"]
    lines += [f"| {', '.join(names)} | {cells} |" for cells, names in rows.items()]
    return "\n".join(lines) + "\n"


def _cell(model: Model) -> str:
    fields = [name for name in model.parameters if name not in COMMON]
    without = [f"`{name}`" for name in COMMON if name not in model.parameters]
    # A numbered series is documented with its first field.
    described = [(_name(name, model), _rule(name, model)) for name in fields if not re.search(r"_\d$", name)]
    grouped = [(", ".join(name for name, _ in group), rule) for rule, group in groupby(described, key=itemgetter(1))]
    limits = [f"at most {format_megapixels(model.max_pixels)} megapixels"] if model.max_pixels else []
    limits += (
        [f"likely resized above {format_megapixels(model.resized_above)} megapixels"] if model.resized_above else []
    )
    limits += [f"one of {' and '.join(f'`{name}`' for name in model.any_of)} is needed"] if model.any_of else []
    limits += [f"without {', '.join(without)}"] if without else []
    limits += (
        [f"only at {', '.join(_NAMES[gateway] for gateway in model.gateways)}"] if len(model.gateways) == 1 else []
    )
    limits += [f"deprecated since {model.deprecated_since}"] if model.deprecated_since else []
    limits += ["refuses any other field"] if model.forbid_extra else []
    return "; ".join([", ".join(" ".join(filter(None, pair)) for pair in grouped), *limits])


def _name(name: str, model: Model) -> str:
    series = [other for other in model.parameters if re.fullmatch(rf"{name}_\d", other)]
    shown = f"`{name}`" + (f" to `{series[-1]}`" if series else "")
    return f"**{shown}**" if model.parameters[name].required else shown


def _rule(name: str, model: Model) -> str:
    parameter = model.parameters_for(BFL)[name]
    default = f"({_plain(parameter.default)})" if parameter.default not in (None, "") else ""
    return " ".join(filter(None, [_range(parameter, model.parameters_for(COMETAPI)[name]), default]))


def _range(parameter: Parameter, at_cometapi: Parameter) -> str:
    if parameter.type == "choice":
        return "/".join(parameter.choices)
    if parameter.type == "ratio":
        widest = str(parameter.max_aspect_ratio)
        return f"{':'.join(reversed(widest.split(':')))} to {widest}"
    if parameter.type in ("image", "images"):
        encodings = " or ".join(_ENCODINGS[encoding] for encoding in parameter.encodings)
        cometapi_encodings = " or ".join(_ENCODINGS[encoding] for encoding in at_cometapi.encodings)
        count = f"up to {parameter.maximum:g}, " if parameter.type == "images" else ""
        difference = "" if cometapi_encodings == encodings else f"; CometAPI: {cometapi_encodings}"
        condition = f"; base64 if {' is '.join(parameter.base64_only_if)}" if parameter.base64_only_if else ""
        return f"[{count}{encodings}{difference}{condition}]"
    if parameter.minimum is None:
        return ""
    low, high = parameter.minimum, parameter.maximum
    bounds = f"{low:g} to {high:g}" if high is not None else f"from {low:g}"
    bounds += f" in steps of {parameter.multiple_of}" if parameter.multiple_of else ""
    bounds += f", likely rounded to a multiple of {parameter.rounded_to}" if parameter.rounded_to else ""
    return bounds + (f", uncertain above {parameter.certain_maximum:g}" if parameter.certain_maximum else "")


_ENCODINGS = {"base64": "base64", "url": "URL"}
_NAMES = {BFL: "Black Forest Labs", COMETAPI: "CometAPI"}


def _plain(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)
