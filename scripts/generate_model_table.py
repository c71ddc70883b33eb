"""Write the table of models and parameters in README.md from the client's catalogue.

``python -m scripts.generate_model_table``
"""

from __future__ import annotations

import re
from itertools import groupby
from operator import itemgetter
from pathlib import Path

from airflow_provider_flux.client.catalogue.constraints import megapixels
from airflow_provider_flux.client.catalogue.models import MODELS, Model, Parameter
from airflow_provider_flux.client.gateways import BFL, COMETAPI

README = Path(__file__).parents[1] / "README.md"
BEGIN, END = "<!-- models: written by `make docs` -->\n", "<!-- end of models -->\n"
# Described once above the table: every model has them, except one that refuses all other fields.
COMMON = ("seed", "webhook_url", "webhook_secret")


def with_table(readme: str) -> str:
    """Return the README's text with an up-to-date table.

    :raises ValueError: if the text lacks the comments that enclose the table.
    """
    before, begin, rest = readme.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"README.md must contain {BEGIN.strip()!r} and {END.strip()!r}.")
    return before + begin + table() + end + after


def table() -> str:
    """Return the table: one row for all models with the same parameters."""
    rows: dict[str, list[str]] = {}
    for name, model in MODELS.items():
        rows.setdefault(_cell(model), []).append(f"`{name}`")
    lines = ["| model | parameters |", "|---|---|"]
    lines += [f"| {', '.join(names)} | {cell} |" for cell, names in rows.items()]
    return "\n".join(lines) + "\n"


def _cell(model: Model) -> str:
    fields = [name for name in model.parameters if model.strict or name not in COMMON]
    # The further ones of a numbered series are told with its first.
    told = [(_name(name, model), _what(name, model)) for name in fields if not re.search(r"_\d$", name)]
    alike = [(", ".join(name for name, _ in group), what) for what, group in groupby(told, key=itemgetter(1))]
    limits = [f"at most {megapixels(model.pixels)} megapixels"] if model.pixels else []
    limits += [f"one of {' and '.join(f'`{name}`' for name in model.one_of)} is needed"] if model.one_of else []
    limits += ["refuses any other field"] if model.strict else []
    return "; ".join([", ".join(" ".join(filter(None, pair)) for pair in alike), *limits])


def _name(name: str, model: Model) -> str:
    series = [other for other in model.parameters if re.fullmatch(rf"{name}_\d", other)]
    shown = f"`{name}`" + (f" to `{series[-1]}`" if series else "")
    return f"**{shown}**" if model.parameters[name].required else shown


def _what(name: str, model: Model) -> str:
    parameter = model.on(BFL)[name]
    default = f"({_plain(parameter.default)})" if parameter.default not in (None, "") else ""
    return " ".join(filter(None, [_range(parameter, model.on(COMETAPI)[name]), default]))


def _range(parameter: Parameter, at_cometapi: Parameter) -> str:
    if parameter.kind == "choice":
        return "/".join(parameter.choices)
    if parameter.kind == "ratio":
        widest = str(parameter.widest)
        return f"{':'.join(reversed(widest.split(':')))} to {widest}"
    if parameter.kind in ("image", "images"):
        forms = " or ".join(_FORMS[form] for form in parameter.forms)
        at = " or ".join(_FORMS[form] for form in at_cometapi.forms)
        most = f"up to {parameter.high:g}, " if parameter.kind == "images" else ""
        return f"[{most}{forms}{'' if at == forms else f'; CometAPI: {at}'}]"
    if parameter.low is None:
        return ""
    bounds = f"{parameter.low:g} to {parameter.high:g}" if parameter.high is not None else f"from {parameter.low:g}"
    return bounds + (f" in steps of {parameter.step}" if parameter.step else "")


_FORMS = {"base64": "base64", "url": "URL"}


def _plain(default: object) -> str:
    return str(default).lower() if isinstance(default, bool) else str(default)


if __name__ == "__main__":
    README.write_text(with_table(README.read_text()))
