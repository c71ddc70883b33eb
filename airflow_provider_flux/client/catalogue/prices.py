"""What an image costs, as data: the published prices, the estimate of a request, and how amounts are written.

Prices are those of Black Forest Labs, in credits. CometAPI passes on the ``cost`` of Black Forest Labs, if it reports
one; what it charges for a credit is in its own price list, which no document that we know gives for each model. So an
estimate predicts ``cost`` at both gateways, and the invoice at Black Forest Labs only.

What is not published is unknown, never guessed: other models, other resolutions, the size of an image that follows an
input image. Last compared with their sources on 2026-11-25.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

PRICED_FIELDS = ("width", "height", "aspect_ratio", "resolution")
"""The fields of a request that may change its price, besides the input images."""
USD_PER_CREDIT = 0.01
"""Source: https://github.com/black-forest-labs/skills (SKILL.md)"""
_MEGAPIXEL = 1024 * 1024
_MAX_MEGAPIXELS = 4
"""Output megapixels above which the API resizes the image, to a size that is not documented."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a request is expected to cost.

    :param credits: Credits, by the price list of Black Forest Labs.
    """

    credits: float

    @property
    def usd(self) -> float:
        """US dollars."""
        return to_usd(self.credits)

    def __str__(self) -> str:
        return format_cost(self.credits)


class Price(Protocol):
    """The price of a model, and where it is published."""

    @property
    def source(self) -> str:
        """Where the price is published, and when it was there."""

    def credits_of(self, request: Mapping[str, Any], input_megapixels: float | None) -> float | None:
        """Return the credits of a validated request; None if they are unknown."""


@dataclass(frozen=True, slots=True)
class PerImage:
    """The same price for every image.

    :param credits: Credits of an image.
    """

    credits: float
    source: str

    def credits_of(self, request: Mapping[str, Any], input_megapixels: float | None) -> float:
        """Return the price."""
        return self.credits


@dataclass(frozen=True, slots=True)
class PerMegapixel:
    """A price that grows with the megapixels of the image and of its input images.

    An image without a size counts as one megapixel: the API's own example, which sets none, costs as much as one.

    :param first: Credits of the first output megapixel.
    :param further: Credits of each further output megapixel, and of each input megapixel.
    """

    first: float
    further: float
    source: str

    def credits_of(self, request: Mapping[str, Any], input_megapixels: float | None) -> float | None:
        """Return the price; None if the size of the image or of an input image is unknown."""
        size = request.get("width"), request.get("height")
        has_inputs = any(name.startswith("input_image") for name in request)
        inputs = input_megapixels if has_inputs else 0.0
        if size == (None, None) and not has_inputs:
            output = 1.0
        elif isinstance(size[0], int) and isinstance(size[1], int):
            output = _rounded_up(size[0]) * _rounded_up(size[1]) / _MEGAPIXEL
        else:
            return None
        # A path at the API, which is not an image that can be measured here.
        if "input_image_blob_path" in request or inputs is None or output > _MAX_MEGAPIXELS:
            return None
        return round(self.first + self.further * (max(0.0, output - 1) + inputs), 2)


def _rounded_up(side: int) -> int:
    # The API may round a side either way; the larger image is the dearer one.
    return -(-side // 16) * 16


@dataclass(frozen=True, slots=True)
class PerResolution:
    """A price for each resolution; input images are free.

    :param credits: Credits of an image of each resolution.
    :param default: The resolution of a request that names none; None: unknown.
    """

    credits: Mapping[str, float]
    source: str
    default: str | None = None

    def credits_of(self, request: Mapping[str, Any], input_megapixels: float | None) -> float | None:
        """Return the price; None if the resolution has no published price, or the size is set in pixels."""
        if "width" in request or "height" in request:
            return None
        return self.credits.get(str(request.get("resolution", self.default)))


_FLUX_1 = "https://github.com/black-forest-labs/skills, SKILL.md (February 2026)"
_FLUX_2 = "https://docs.us.bfl.ai/flux_2/flux2_overview (February 2026)"
_FLUX_3 = "https://docs.bfl.ai/flux_3/flux3_image_overview (October 2026)"

PRICES: Mapping[str, Price] = {
    "flux-pro-1.1": PerImage(4, _FLUX_1),
    "flux-pro-1.1-ultra": PerImage(6, _FLUX_1),
    "flux-dev": PerImage(2.5, "price lists of resellers (February 2026)"),
    "flux-kontext-pro": PerImage(4, _FLUX_1),
    "flux-kontext-max": PerImage(8, _FLUX_1),
    "flux-pro-1.0-fill": PerImage(5, _FLUX_1),
    "flux-2-max": PerMegapixel(7, 3, _FLUX_2),
    "flux-2-pro": PerMegapixel(3, 1.5, _FLUX_2),
    # SKILL.md says 5 credits; of two prices, the higher one keeps a maximum cost.
    "flux-2-flex": PerMegapixel(6, 6, _FLUX_2),
    "flux-2-klein-4b": PerMegapixel(1.4, 0.1, _FLUX_2),
    "flux-2-klein-9b": PerMegapixel(1.5, 0.2, _FLUX_2),
    "flux-3-image": PerResolution({"768sq": 4.1, "1k": 4.8, "2k": 10, "4k": 60.7}, _FLUX_3, default="1k"),
    "flux-3-image-klein": PerResolution({"1k": 0.9, "2k": 1.4, "4k": 3.6}, _FLUX_3),
}
"""The published prices by model; the price of any other model is unknown."""


def estimate(model: str, request: Mapping[str, Any], input_megapixels: float | None = None) -> Estimate | None:
    """Return what a request is expected to cost; None if that is unknown.

    :param model: The model's name.
    :param request: The validated fields of the request; see :func:`.validation.build_request`.
    :param input_megapixels: Megapixels (of 1024 x 1024) of all input images together; None: unknown. Only the price of
        FLUX.2 depends on them.
    """
    price = PRICES.get(model)
    credits = None if price is None else price.credits_of(request, input_megapixels)
    return None if credits is None else Estimate(credits)


def to_usd(credits: float) -> float:
    """Return an amount of credits in US dollars."""
    # Products of floats are inexact.
    return round(credits * USD_PER_CREDIT, 6)


def format_cost(credits: float) -> str:
    """Return an amount of credits for people: ``"2.5 credits ($0.025)"``."""
    return f"{round(credits, 6):.15g} {'credit' if credits == 1 else 'credits'} ({format_usd(credits)})"


def format_usd(credits: float) -> str:
    """Return an amount of credits in US dollars, for people: ``"$0.025"``."""
    dollars = f"{to_usd(credits):.4f}"
    return f"${dollars[:-2]}{dollars[-2:].rstrip('0')}"
