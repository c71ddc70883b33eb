"""The price table: what an image is estimated to cost, and when that is unknown."""

from __future__ import annotations

import re
from typing import Any

import pytest

from airflow_provider_flux.client.catalogue.prices import PRICED_FIELDS, PRICES, Estimate, estimate, format_cost

FULL_HD = {"width": 1920, "height": 1080}


@pytest.mark.parametrize(
    ("model", "request_", "credits"),
    [
        ("flux-pro-1.1", FULL_HD, 4),
        ("flux-kontext-max", {"input_image": "https://host/a.png"}, 8),
        ("flux-2-pro", {}, 3),
        ("flux-2-pro", {"width": 512, "height": 512}, 3),
        ("flux-2-pro", FULL_HD, 4.49),
        ("flux-2-max", {"width": 2048, "height": 2048}, 16),
        ("flux-3-image", {}, 4.8),
        ("flux-3-image", {"resolution": "4k", "aspect_ratio": "auto"}, 60.7),
    ],
)
def test_estimate_is_the_published_price(model: str, request_: dict[str, Any], credits: float) -> None:
    estimated = estimate(model, {"prompt": "a pear", **request_})
    assert estimated == Estimate(credits)
    assert estimated.usd == pytest.approx(credits / 100)


@pytest.mark.parametrize(
    ("model", "request_"),
    [
        ("flux-pro-1.0-expand", {"top": 64}),
        ("flux-9", {}),
        ("flux-3-image", {"resolution": "1.5k"}),
        ("flux-3-image-klein", {"width": 512, "height": 512}),
        ("flux-3-image-klein", {}),
        ("flux-2-pro", {"width": 512}),
        ("flux-2-pro", {"width": "many", "height": 512}),
        ("flux-2-pro", {"width": 4096, "height": 4096}),
        ("flux-2-pro", {**FULL_HD, "input_image": "https://host/a.png"}),
        ("flux-2-flex", {**FULL_HD, "input_image_blob_path": "a.png"}),
    ],
)
def test_estimate_is_unknown_where_no_price_is_published(model: str, request_: dict[str, Any]) -> None:
    assert estimate(model, {"prompt": "a pear", **request_}) is None


def test_input_megapixels_are_billed_with_flux_2_only() -> None:
    edit = {"width": 1024, "height": 1024, "input_image": "https://host/a.png"}
    assert estimate("flux-2-pro", edit, 2) == Estimate(6)
    assert estimate("flux-2-pro", {"width": 1024, "height": 1024}, 2) == Estimate(3)
    assert estimate("flux-2-pro", {"input_image": "https://host/a.png"}, 2) is None, "it follows the input image"
    assert estimate("flux-kontext-pro", edit, 2) == Estimate(4)


def test_every_price_names_its_source() -> None:
    undated = [name for name, price in PRICES.items() if not re.search(r"\(\w+ 20\d\d\)", price.source)]
    assert undated == [], "a source ends with its month, such as (November 2026)"


class Read(dict[str, Any]):
    """A request that records which of its fields a price reads."""

    def __init__(self, fields: dict[str, Any]) -> None:
        super().__init__(fields)
        self.names: set[str] = set()

    def get(self, name: str, default: Any = None) -> Any:
        self.names.add(name)
        return super().get(name, default)

    def __getitem__(self, name: str) -> Any:
        return self.get(name)

    def __contains__(self, name: object) -> bool:
        self.names.add(str(name))
        return super().__contains__(name)


@pytest.mark.parametrize("model", PRICES)
def test_a_batch_tells_requests_of_different_prices_apart(model: str) -> None:
    """A batch learns what a request costs from others with the same priced fields and number of input images."""
    requests = [Read({"prompt": "a pear", **size}) for size in ({}, FULL_HD)]
    for request in requests:
        estimate(model, request, 0)
    names = {name for request in requests for name in request.names if not name.startswith(("input_image", "images"))}
    missing = names - {*PRICED_FIELDS}
    assert missing == set(), "add these fields to PRICED_FIELDS in client/catalogue/prices.py"


@pytest.mark.parametrize(
    ("credits", "text"),
    [
        (1, "1 credit ($0.01)"),
        (4.0, "4 credits ($0.04)"),
        (2.5, "2.5 credits ($0.025)"),
        (0, "0 credits ($0.00)"),
        (60.7, "60.7 credits ($0.607)"),
        (1000, "1000 credits ($10.00)"),
    ],
)
def test_costs_are_written_in_credits_and_dollars(credits: float, text: str) -> None:
    assert format_cost(credits) == str(Estimate(credits)) == text
