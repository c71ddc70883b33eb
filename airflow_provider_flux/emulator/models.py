"""The models that the emulator offers, as data: parameters, ranges, defaults, prices.

Written from the vendors' documentation (https://docs.bfl.ml/api-reference, https://api.bfl.ai/openapi.json,
https://apidoc.cometapi.com/api/image/flux/flux-generate-image) and independent of the client's own catalogue, so that a
mistake in one of the two shows. A model's parameters stand in the order of the published schema, in which the API
reports errors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

MEGAPIXEL = 1024 * 1024
Kind = Literal["integer", "number", "boolean", "string", "choice", "ratio", "url", "image", "images"]


@dataclass(frozen=True)
class Parameter:
    """What one request field accepts.

    :param low: the minimum; of a string or a url the minimum length in characters, of images the minimum number.
    :param high: the maximum; of a string or a url the maximum length in characters, of images the maximum number.
    :param default: the value that is used if the field is not sent.
    :param step: the value must be a multiple of this.
    :param choices: the allowed words of a choice.
    :param ratio: the maximum ratio of the longer to the shorter side.
    :param nullable: whether null is accepted where the field is not required.
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
    """One model. Prices are in credits; 1 credit is 0.01 USD.

    :param parameters: the request fields.
    :param price: credits for an image of up to one megapixel, or of the default resolution.
    :param per_mp: credits for each further megapixel, and for each megapixel of input images.
    :param tiers: credits for an image of each resolution other than the default.
    :param required: fields that must be sent.
    :param either: fields of which at least one must be sent and not be null.
    :param refuses: fields that are an error although the model ignores unknown fields.
    :param strict: whether an unknown field is an error.
    :param area: output megapixels if the request has no width and height.
    :param max_megapixels: maximum of width times height, in megapixels of 1024 x 1024.
    :param late_cost: whether the cost is null in the submit response and reported with the result.
    :param max_active: maximum number of active jobs of this model; None means that only the account's limit applies.
    :param max_input_pixels: maximum number of pixels of each input image.
    :param min_input_side: minimum width and height of each input image in pixels.
    :param urls: whether all its input images may be URLs, whichever API is used.
    :param fits: whether an image above the maximum is scaled down instead of refused.
    :param grid: the sides of the image are rounded to multiples of this.
    :param link_ttl: seconds for which a download link is valid.
    :param dialects: the APIs that offer the model.
    """

    parameters: Mapping[str, Parameter]
    price: float
    per_mp: float = 0.0
    tiers: Mapping[str, float] = field(default_factory=dict)
    required: tuple[str, ...] = ()
    either: tuple[str, ...] = ()
    refuses: tuple[str, ...] = ()
    strict: bool = False
    area: float = 1.0
    max_megapixels: float | None = None
    late_cost: bool = False
    max_active: int | None = None
    max_input_pixels: int = 20_000_000
    min_input_side: int = 256
    urls: bool = False
    fits: bool = False
    grid: int = 1
    link_ttl: float = 600.0
    dialects: tuple[str, ...] = ("bfl", "cometapi")


def _integer(low: float | None = None, high: float | None = None, default: int | None = None) -> Parameter:
    return Parameter("integer", low, high, default, nullable=True)


def _number(low: float, high: float, default: float) -> Parameter:
    return Parameter("number", low, high, default, nullable=True)


def _strength(high: float, default: float) -> Parameter:
    return Parameter("number", 0, high, default)


def _flag(default: bool = False, nullable: bool = False) -> Parameter:
    return Parameter("boolean", default=default, nullable=nullable)


def _side(default: int) -> Parameter:
    return Parameter("integer", 256, 1440, default, step=32)


def _safety(high: int) -> Parameter:
    return Parameter("integer", 0, high, 2)


def _output(default: str = "jpeg") -> Parameter:
    return Parameter("choice", default=default, choices=("jpeg", "png", "webp"), nullable=True)


def _references(count: int) -> dict[str, Parameter]:
    return {"input_image" if n == 1 else f"input_image_{n}": _IMAGE for n in range(1, count + 1)}


_PROMPT = Parameter("string")
_OPTIONAL_PROMPT = Parameter("string", default="", nullable=True)
_TEXT = Parameter("string", nullable=True)
_IMAGE = Parameter("image", nullable=True)
_SEED = _integer()
# The default of 0 means that the API chooses the size.
_AUTO_SIDE = Parameter("integer", 64, default=0, nullable=True)
_WEBHOOK = {"webhook_url": Parameter("url", 1, 2083, nullable=True), "webhook_secret": _TEXT}
_USER = {"user": Parameter("string", 1, 256, nullable=True)}

_FLUX_PRO_1_1 = {
    "prompt": _OPTIONAL_PROMPT,
    "image_prompt": _IMAGE,
    "width": _side(1024),
    "height": _side(768),
    "prompt_upsampling": _flag(),
    "seed": _SEED,
    "safety_tolerance": _safety(6),
    "output_format": _output(),
    **_WEBHOOK,
    **_USER,
}
_FLUX_PRO = {
    "prompt": _OPTIONAL_PROMPT,
    "image_prompt": _IMAGE,
    "width": _side(1024),
    "height": _side(768),
    "steps": _integer(1, 50, 40),
    "prompt_upsampling": _flag(),
    "seed": _SEED,
    "guidance": _number(1.5, 5, 2.5),
    "safety_tolerance": _safety(6),
    "interval": _number(1, 4, 2),
    "output_format": _output(),
    **_WEBHOOK,
    **_USER,
}
_FLUX_DEV = {
    "prompt": Parameter("string", default=""),
    "image_prompt": _IMAGE,
    "width": _side(1024),
    "height": _side(768),
    "steps": _integer(1, 50, 28),
    "prompt_upsampling": _flag(),
    "seed": _SEED,
    "guidance": _number(1.5, 5, 3.0),
    "safety_tolerance": _safety(6),
    "output_format": _output(),
    **_WEBHOOK,
    **_USER,
}
_ULTRA = {
    "prompt": _OPTIONAL_PROMPT,
    "prompt_upsampling": _flag(),
    "seed": _SEED,
    "aspect_ratio": Parameter("ratio", default="16:9", ratio=21 / 9),
    "safety_tolerance": _safety(6),
    "output_format": _output(),
    "raw": _flag(),
    "image_prompt": _IMAGE,
    "image_prompt_strength": _strength(1, 0.1),
    **_WEBHOOK,
    **_USER,
}
_KONTEXT = {
    "prompt": _PROMPT,
    **_references(4),
    "seed": _SEED,
    "aspect_ratio": Parameter("ratio", ratio=7 / 3, nullable=True),
    "output_format": _output("png"),
    **_WEBHOOK,
    "prompt_upsampling": _flag(),
    "safety_tolerance": _safety(6),
    **_USER,
}
_EDIT = {
    "prompt": _OPTIONAL_PROMPT,
    "steps": _integer(15, 50, 50),
    "prompt_upsampling": _flag(nullable=True),
    "seed": _SEED,
    "guidance": _number(1.5, 100, 60),
    "output_format": _output(),
    "safety_tolerance": _safety(6),
    **_WEBHOOK,
    **_USER,
}
_FILL = {"image": Parameter("image"), "mask": _IMAGE, **_EDIT}
_EXPAND = {
    "image": Parameter("image"),
    **dict.fromkeys(("top", "bottom", "left", "right"), _integer(0, 2048, 0)),
    **_EDIT,
}
_DEPTH = {
    "prompt": _OPTIONAL_PROMPT,
    "control_image": _IMAGE,
    "preprocessed_image": _IMAGE,
    "prompt_upsampling": _flag(),
    "seed": _SEED,
    "steps": _integer(15, 50, 50),
    "output_format": _output(),
    "guidance": _number(1, 100, 30),
    "safety_tolerance": _safety(6),
    **_WEBHOOK,
    **_USER,
}
_CANNY = {
    **_DEPTH,
    "canny_low_threshold": _integer(0, 500, 50),
    "canny_high_threshold": _integer(0, 500, 200),
}
_ULTRA_FINETUNED = {
    "finetune_id": _PROMPT,
    "finetune_strength": _strength(2, 1.2),
    "prompt": _OPTIONAL_PROMPT,
    "seed": _SEED,
    "aspect_ratio": Parameter("ratio", default="16:9", ratio=21 / 9),
    "safety_tolerance": _safety(6),
    "output_format": _output(),
    "image_prompt": _IMAGE,
    "image_prompt_strength": _strength(1, 0.1),
    "prompt_upsampling": _flag(),
    **_WEBHOOK,
}
_FILL_FINETUNED = {
    "finetune_id": _PROMPT,
    "finetune_strength": _strength(2, 1.1),
    **_FILL,
    **{name: replace(_FILL[name], nullable=False) for name in ("prompt", "steps", "prompt_upsampling", "guidance")},
}
# CometAPI documents a safety_tolerance up to 6 for all models; its upstream rejects more than a model's own maximum.
_SIZE_AND_OUTPUT = {
    "seed": _SEED,
    "width": _AUTO_SIDE,
    "height": _AUTO_SIDE,
    "safety_tolerance": _safety(5),
    "output_format": _output(),
    **_WEBHOOK,
    **_USER,
}
_FLUX_2 = {"prompt": _PROMPT, **_references(8), **_SIZE_AND_OUTPUT, "disable_pup": _flag()}
_KLEIN = {"prompt": _PROMPT, **_references(4), **_SIZE_AND_OUTPUT}
# Likely: the range and the default are those of the other fine-tuned models, no document has them.
_KLEIN_FINETUNED = {"finetune_id": _PROMPT, "finetune_strength": _strength(2, 1.0), **_KLEIN}
_TOOL = {"seed": _SEED, "safety_tolerance": _safety(5), "output_format": _output("png"), **_WEBHOOK}
_OUTPAINTING = {
    **_USER,
    "input_image": Parameter("image"),
    "width": Parameter("integer", 64),
    "height": Parameter("integer", 64),
    "auto_crop": _flag(),
    "safety_tolerance": _safety(5),
    "output_format": _output("png"),
    "prompt": _TEXT,
    "reference_offset_x": _integer(),
    "reference_offset_y": _integer(),
    "mode": Parameter("choice", default="high", choices=("high", "fast")),
    "disable_pup": _flag(),
    # Likely: the documents disagree on these.
    "seed": _SEED,
    **_WEBHOOK,
}
_ERASE = {
    **_USER,
    "image": Parameter("image"),
    "mask": Parameter("image"),
    "dilate_pixels": Parameter("integer", 0, 25, 10),
    **_TOOL,
}
_DEBLUR = {**_USER, "image": Parameter("image"), **_TOOL}
_TRY_ON = {
    **_USER,
    "prompt": _PROMPT,
    "person": Parameter("image"),
    "garment": Parameter("image"),
    **_TOOL,
    "output_format": _output(),
}
_FLEX = {
    "prompt": _PROMPT,
    "prompt_upsampling": _flag(True, nullable=True),
    **_references(8),
    "input_image_blob_path": _TEXT,
    "seed": _SEED,
    "width": _AUTO_SIDE,
    "height": _AUTO_SIDE,
    "guidance": _number(1.5, 10, 5.0),
    "steps": _integer(1, 50, 50),
    "safety_tolerance": _safety(5),
    "output_format": _output(),
    **_WEBHOOK,
    **_USER,
}
_FLUX_3_RATIOS = (
    *("auto", "21:9", "2:1", "16:9", "3:2", "7:5", "4:3", "5:4", "1:1"),
    *("4:5", "3:4", "5:7", "2:3", "9:16", "1:2", "9:21"),
)
_FLUX_3 = {
    "prompt": _PROMPT,
    "images": Parameter("images", 1, 10, nullable=True),
    "aspect_ratio": Parameter("choice", default="auto", choices=_FLUX_3_RATIOS),
    "resolution": Parameter("choice", default="1k", choices=("768sq", "1k", "1.5k", "2k", "4k")),
    # Likely: 0-4 until October 2026.
    "safety_tolerance": _safety(7),
    "grounding": _flag(True),
    "version": Parameter("string", default="latest"),
}
# Certain is that these fields exist. Likely: their ranges, as other clients have them (celeste-ai 1.0).
_FLUX_3_KLEIN = {
    "prompt": _PROMPT,
    "images": Parameter("images", 1, 10, nullable=True),
    "aspect_ratio": Parameter("choice", default="auto", choices=_FLUX_3_RATIOS),
    "resolution": Parameter("choice", default="1k", choices=("768sq", "1k", "1.5k", "2k", "4k")),
    "width": Parameter("integer", 64, nullable=True),
    "height": Parameter("integer", 64, nullable=True),
    "seed": _SEED,
    "steps": _integer(1, 16),
    "safety_tolerance": _safety(7),
    "output_format": _output(),
    **_USER,
}


# The help page says that a size above 4 megapixels is resized, and that sides are multiples of 16; the schema says
# neither, and the documentation's own examples ask for 1440 x 810.
def _flux_2(parameters: Mapping[str, Parameter], price: float, per_mp: float) -> Model:
    return Model(parameters, price, per_mp, required=("prompt",), max_megapixels=4, fits=True, grid=16)


def _finetuned_klein(price: float, per_mp: float) -> Model:
    return replace(_flux_2(_KLEIN_FINETUNED, price, per_mp), required=("finetune_id", "prompt"))


def _flux_3(parameters: Mapping[str, Parameter], price: float, tiers: Mapping[str, float]) -> Model:
    return Model(
        *(parameters, price, 0, tiers, ("prompt",)),
        strict=True,
        max_megapixels=16,
        late_cost=True,
        fits=True,
        max_input_pixels=16 * 1024 * 1024,
        link_ttl=3600,
    )


def _kontext(price: float, max_active: int | None = None) -> Model:
    return Model(_KONTEXT, price, required=("prompt",), refuses=("width", "height"), max_active=max_active)


_VTO = Model(_TRY_ON, 4, required=("prompt", "person", "garment"), max_megapixels=4, urls=True, fits=True)
_CONTROL_IMAGES = ("control_image", "preprocessed_image")

MODELS: Mapping[str, Model] = {
    "flux-pro-1.1": Model(_FLUX_PRO_1_1, 4),
    "flux-pro": Model(_FLUX_PRO, 5, dialects=("cometapi",)),
    "flux-dev": Model(_FLUX_DEV, 2.5),
    "flux-pro-1.1-ultra": Model(_ULTRA, 6, area=4),
    "flux-pro-1.1-ultra-finetuned": Model(_ULTRA_FINETUNED, 6, required=("finetune_id",), area=4),
    "flux-kontext-pro": _kontext(4),
    "flux-kontext-max": _kontext(8, max_active=6),
    "flux-pro-1.0-fill": Model(_FILL, 5, required=("image",)),
    "flux-pro-1.0-fill-finetuned": Model(_FILL_FINETUNED, 5, required=("finetune_id", "image")),
    "flux-pro-1.0-expand": Model(_EXPAND, 5, required=("image",)),
    "flux-pro-1.0-canny": Model(_CANNY, 5, either=_CONTROL_IMAGES, dialects=("cometapi",)),
    "flux-pro-1.0-depth": Model(_DEPTH, 5, either=_CONTROL_IMAGES, dialects=("cometapi",)),
    "flux-2-max": _flux_2(_FLUX_2, 7, 3),
    "flux-2-pro": _flux_2(_FLUX_2, 3, 1.5),
    "flux-2-pro-preview": _flux_2(_FLUX_2, 3, 1.5),
    "flux-2-flex": _flux_2(_FLEX, 6, 6),
    "flux-2-klein-4b": _flux_2(_KLEIN, 1.4, 0.1),
    "flux-2-klein-9b": _flux_2(_KLEIN, 1.5, 0.2),
    "flux-2-klein-9b-preview": _flux_2(_KLEIN, 1.5, 0.2),
    "flux-2-klein-4b-finetuned": _finetuned_klein(1.4, 0.1),
    "flux-2-klein-9b-finetuned": _finetuned_klein(1.5, 0.2),
    "flux-2-klein-9b-kv-finetuned": _finetuned_klein(1.5, 0.2),
    "flux-2-klein-9b-kv-bf16-finetuned": _finetuned_klein(1.5, 0.2),
    "flux-2-klein-base-4b-finetuned": _finetuned_klein(1.4, 0.1),
    "flux-2-klein-base-9b-finetuned": _finetuned_klein(1.5, 0.2),
    # The prices of 1.5k, and of klein's 768sq, are guesses.
    "flux-3-image": _flux_3(_FLUX_3, 4.8, {"768sq": 4.1, "1.5k": 7.0, "2k": 10, "4k": 60.7}),
    "flux-3-image-klein": _flux_3(_FLUX_3_KLEIN, 0.9, {"1.5k": 1.2, "2k": 1.4, "4k": 3.6}),
    # The prices of the tools are guesses.
    "flux-tools/outpainting-v1": Model(
        *(_OUTPAINTING, 5, 0, {}, ("input_image", "width", "height")),
        strict=True,
        max_megapixels=4,
        min_input_side=64,
        urls=True,
    ),
    "flux-tools/erase-v1": Model(_ERASE, 3, required=("image", "mask"), urls=True),
    "flux-tools/deblur-v1": Model(_DEBLUR, 3, required=("image",), max_input_pixels=4 * MEGAPIXEL, urls=True),
    **dict.fromkeys(("flux-tools/vto-v1", "flux-tools/vto-v2"), _VTO),
}


def offered_by(model: str) -> tuple[str, ...]:
    """Return the APIs that offer `model`; none if it is unknown."""
    return MODELS[model].dialects if model in MODELS else ()
