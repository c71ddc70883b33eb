"""The documentation's table of published prices, from the client's price list."""

from __future__ import annotations

from airflow_provider_flux.client.catalogue.prices import (
    PRICES,
    PerImage,
    PerMegapixel,
    PerResolution,
    Price,
    format_cost,
)


def table() -> str:
    """Return the table: one row for each model with a published price."""
    rows = [f"| `{model}` | {_words(price)} | {_linked(price.source)} |" for model, price in PRICES.items()]
    return "\n".join(["| model | an image costs | source |", "|---|---|---|", *rows]) + "\n"


def _words(price: Price) -> str:
    match price:
        case PerImage(credits):
            return format_cost(credits)
        case PerMegapixel(first, further):
            return (
                f"{format_cost(first)} for the first megapixel, {format_cost(further)} for each further one "
                "and for each megapixel of input images"
            )
        case PerResolution(credits):
            return "; ".join(f"`{name}`: {format_cost(cost)}" for name, cost in credits.items())
    raise TypeError(f"A price of type {type(price).__name__} has no words yet.")


def _linked(source: str) -> str:
    url, space, rest = source.partition(" ")
    return f"<{url.rstrip(',')}>{space}{rest}" if url.startswith("https://") else source
