"""The models the emulator sells, as data: parameters, ranges, defaults, prices.

Written from the vendors' documentation and independent of the client's own catalogue, so that a
mistake in one of the two shows. Prices are in credits (1 credit = 0.01 USD).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal["integer", "number", "boolean", "string", "choice", "ratio", "url", "image", "images"]


@dataclass(frozen=True)
class Parameter:
    """What one request field may hold.

    :param low: smallest value, or for a url the fewest characters.
    :param high: largest value; for a url the most characters, for images the most items.
    :param step: the value must be a multiple of this.
    :param choices: the allowed words of a choice.
    :param ratio: how far a ratio may be from square, in both directions.
    """

    kind: Kind
    low: float | None = None
    high: float | None = None
    default: Any = None
    step: int | None = None
    choices: tuple[str, ...] = ()
    ratio: float = 4.0
    nullable: bool = False


@dataclass(frozen=True)
class Model:
    """One model.

    :param required: fields that must be there; of `either`, one must be there and not null.
    :param refuses: fields that are an error although an unknown field is ignored.
    :param strict: an unknown field is an error.
    :param price: credits for an image of up to one megapixel; `per_mp` for every further one.
    :param area: output megapixels where the request names no width and height.
    :param late_cost: the price is told with the result and is null in the submit's answer.
    :param max_active: most active jobs of this model; None means the account's limit alone.
    """

    parameters: Mapping[str, Parameter]
    price: float
    per_mp: float = 0.0
    required: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    strict: bool = False
    area: float = 1.0
    max_megapixels: float | None = None
    late_cost: bool = False
    max_active: int | None = None


def _integer(low: float | None = None, high: float | None = None, default: int | None = None) -> Parameter:
    return Parameter("integer", low, high, default, nullable=True)


def _number(low: float, high: float, default: float) -> Parameter:
    return Parameter("number", low, high, default, nullable=True)


def _flag(default: bool = False) -> Parameter:
    return Parameter("boolean", default=default)


def _side(default: int) -> Parameter:
    return Parameter("integer", 256, 1440, default, step=32)


def _output(default: str = "jpeg") -> Parameter:
    return Parameter("choice", default=default, choices=("jpeg", "png", "webp"), nullable=True)


_TEXT = Parameter("string", default="", nullable=True)
_PROMPT = Parameter("string")
_IMAGE = Parameter("image", nullable=True)
_MARGIN = Parameter("integer", 0, 2048, 0)


def _references(most: int) -> dict[str, Parameter]:
    return {"input_image" if n == 1 else f"input_image_{n}": _IMAGE for n in range(1, most + 1)}


_COMMON = {
    "seed": _integer(),
    "webhook_url": Parameter("url", 1, 2083, nullable=True),
    "webhook_secret": Parameter("string", nullable=True),
    "output_format": _output(),
    "safety_tolerance": Parameter("integer", 0, 6, 2),
}
_FLUX1 = {**_COMMON, "prompt": _TEXT, "prompt_upsampling": _flag()}
_SIZED = {**_FLUX1, "image_prompt": _IMAGE, "width": _side(1024), "height": _side(768)}
_ULTRA = {
    **_FLUX1,
    "image_prompt": _IMAGE,
    "image_prompt_strength": Parameter("number", 0, 1, 0.1),
    "aspect_ratio": Parameter("ratio", default="16:9", ratio=21 / 9),
    "raw": _flag(),
}
_KONTEXT = {
    **_FLUX1,
    **_references(4),
    "prompt": _PROMPT,
    "aspect_ratio": Parameter("ratio", nullable=True),
    "output_format": _output("png"),
}
_EDIT = {
    **_FLUX1,
    "image": Parameter("image"),
    "steps": _integer(15, 50, 50),
    "guidance": _number(1.5, 100, 60),
}
_FILL = {**_EDIT, "mask": _IMAGE}
_EXPAND = {**_EDIT, **dict.fromkeys(("top", "bottom", "left", "right"), _MARGIN)}
_CONTROL = {
    **_FLUX1,
    "control_image": _IMAGE,
    "preprocessed_image": _IMAGE,
    "steps": _integer(15, 50, 50),
    "guidance": _number(1, 100, 30),
}
_CANNY = {
    **_CONTROL,
    "canny_low_threshold": _integer(0, 500, 50),
    "canny_high_threshold": _integer(0, 500, 200),
}
# CometAPI's page has a safety_tolerance up to 6 for all models; what stands behind it refuses more than a model's own.
_FLUX2 = {
    **_COMMON,
    **_references(8),
    "prompt": _PROMPT,
    "width": Parameter("integer", 64, default=1024, step=16, nullable=True),
    "height": Parameter("integer", 64, default=1024, step=16, nullable=True),
    "safety_tolerance": Parameter("integer", 0, 5, 2),
}
_FLEX = {
    **_FLUX2,
    "input_image_blob_path": Parameter("string", nullable=True),
    "guidance": _number(1.5, 10, 5.0),
    "steps": _integer(1, 50, 50),
    "prompt_upsampling": _flag(True),
}
_KLEIN = {name: rule for name, rule in _FLUX2.items() if name not in _references(8) or name in _references(4)}
_FLUX3_RATIOS = (
    *("auto", "21:9", "2:1", "16:9", "3:2", "7:5", "4:3", "5:4", "1:1"),
    *("4:5", "3:4", "5:7", "2:3", "9:16", "1:2", "9:21"),
)
_FLUX3 = {
    "prompt": _PROMPT,
    "images": Parameter("images", high=10, nullable=True),
    "aspect_ratio": Parameter("choice", default="auto", choices=_FLUX3_RATIOS),
    "resolution": Parameter("choice", default="1k", choices=("768sq", "1k", "1.5k", "2k", "4k")),
    "safety_tolerance": Parameter("integer", 0, 4, 2),
    "grounding": _flag(True),
    "version": Parameter("string", default="latest"),
}


def _tuned(parameters: Mapping[str, Parameter], strength: float) -> dict[str, Parameter]:
    return {**parameters, "finetune_id": _PROMPT, "finetune_strength": Parameter("number", 0, 2, strength)}


def _flux2(parameters: Mapping[str, Parameter], price: float, per_mp: float) -> Model:
    return Model(parameters, price, per_mp, required=("prompt",), max_megapixels=4)


def _kontext(price: float, max_active: int | None = None) -> Model:
    refuses = ("width", "height")
    return Model(_KONTEXT, price, required=("prompt",), refuses=refuses, max_active=max_active)


_DEV_STEPS = {"steps": _integer(1, 50, 28), "guidance": _number(1.5, 5, 3.0)}
_PRO_STEPS = {"steps": _integer(1, 50, 40), "guidance": _number(1.5, 5, 2.5), "interval": _number(1, 4, 2)}
_EITHER = ("control_image", "preprocessed_image")

MODELS: Mapping[str, Model] = {
    "flux-pro-1.1": Model(_SIZED, 4),
    "flux-pro": Model({**_SIZED, **_PRO_STEPS}, 5),
    "flux-dev": Model({**_SIZED, **_DEV_STEPS}, 2.5),
    "flux-pro-1.1-ultra": Model(_ULTRA, 6, area=4),
    "flux-pro-1.1-ultra-finetuned": Model(_tuned(_ULTRA, 1.2), 6, required=("finetune_id",), area=4),
    "flux-kontext-pro": _kontext(4),
    "flux-kontext-max": _kontext(8, max_active=6),
    "flux-pro-1.0-fill": Model(_FILL, 5, required=("image",)),
    "flux-pro-1.0-fill-finetuned": Model(_tuned(_FILL, 1.1), 5, required=("finetune_id", "image")),
    "flux-pro-1.0-expand": Model(_EXPAND, 5, required=("image",)),
    "flux-pro-1.0-canny": Model(_CANNY, 5, either=_EITHER),
    "flux-pro-1.0-depth": Model(_CONTROL, 5, either=_EITHER),
    "flux-2-max": _flux2(_FLUX2, 7, 3),
    "flux-2-pro": _flux2(_FLUX2, 3, 1.5),
    "flux-2-pro-preview": _flux2(_FLUX2, 3, 1.5),
    "flux-2-flex": _flux2(_FLEX, 6, 6),
    "flux-2-klein-4b": _flux2(_KLEIN, 1.4, 0.1),
    "flux-2-klein-9b": _flux2(_KLEIN, 1.5, 0.2),
    "flux-2-klein-9b-preview": _flux2(_KLEIN, 1.5, 0.2),
    "flux-3-image": Model(_FLUX3, 6, required=("prompt",), strict=True, late_cost=True),
}
