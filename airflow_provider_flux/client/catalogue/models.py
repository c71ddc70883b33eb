"""What each FLUX model takes: the catalogue, as data. To add a model, add one entry to ``MODELS``.

Sources: https://docs.bfl.ml/api-reference and https://api.bfl.ai/openapi.json (April 2026); for the limits of FLUX.2,
https://help.bfl.ai/articles/4029171097-flux-2-technical-specifications; for FLUX 3,
https://docs.bfl.ai/flux_3/flux3_image_overview; for the differences at CometAPI,
https://apidoc.cometapi.com/api/image/flux/flux-generate-image, which leaves each model's ranges to Black Forest Labs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from airflow_provider_flux.client.gateways import COMETAPI
from airflow_provider_flux.exceptions import FluxBadRequestError

ParameterType = Literal["integer", "number", "boolean", "text", "choice", "ratio", "url", "image", "images"]
URL, BASE64 = "url", "base64"


@dataclass(frozen=True, slots=True)
class Parameter:
    """The values that one field of a request takes.

    :param type: How a value is coerced and validated; ``ratio`` is ``"width:height"``.
    :param minimum: Smallest value.
    :param maximum: Largest value; for a ``url`` its length in characters, for ``images`` their number.
    :param multiple_of: Every value is a multiple of this.
    :param default: What the API uses if the field is not sent; None if it documents no default.
    :param choices: The valid words of a ``choice``.
    :param max_aspect_ratio: The widest valid ``ratio``; its inverse is the narrowest.
    :param required: Whether the API refuses a request without the field.
    :param encodings: How an image may be sent, the gateway's documented one first: ``"url"`` or ``"base64"`` (also as
        a data: URI).
    :param overrides: What differs at a gateway: its name -> the values of these fields there.
    """

    type: ParameterType
    minimum: float | None = None
    maximum: float | None = None
    multiple_of: int | None = None
    default: Any = None
    choices: tuple[str, ...] = ()
    max_aspect_ratio: str | None = None
    required: bool = False
    encodings: tuple[str, ...] = ()
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def for_gateway(self, gateway: str) -> Parameter:
        """Return the parameter as ``gateway`` documents it."""
        return replace(self, overrides={}, **self.overrides[gateway]) if gateway in self.overrides else self


@dataclass(frozen=True, slots=True)
class Model:
    """The parameters and limits of one model.

    :param parameters: Its request fields.
    :param typical_seconds: How many seconds a job typically takes.
    :param any_of: Fields of which at least one is required.
    :param max_pixels: Largest ``width`` times ``height``.
    :param forbid_extra: Whether the API refuses unknown fields instead of ignoring them.
    :param alternatives: Fields of other models that this one does not take -> what to use instead.
    """

    parameters: Mapping[str, Parameter]
    typical_seconds: float
    any_of: tuple[str, ...] = ()
    max_pixels: int | None = None
    forbid_extra: bool = False
    alternatives: Mapping[str, str] = field(default_factory=dict)

    def parameters_for(self, gateway: str) -> dict[str, Parameter]:
        """Return the request fields as ``gateway`` documents them."""
        return {name: parameter.for_gateway(gateway) for name, parameter in self.parameters.items()}


def _output(default: str) -> dict[str, Parameter]:
    return {"output_format": Parameter("choice", choices=("jpeg", "png", "webp"), default=default)}


# CometAPI's page gives 0 to 6 for all models, but leaves the ranges to each model's own page and forwards requests to
# an API that refuses higher values. So the model's own limit applies at both gateways.
def _safety(maximum: int) -> dict[str, Parameter]:
    return {"safety_tolerance": Parameter("integer", 0, maximum, default=2)}


def _size(
    minimum: int, maximum: int | None, multiple_of: int, width: int | None, height: int | None
) -> dict[str, Parameter]:
    return {
        "width": Parameter("integer", minimum, maximum, multiple_of, default=width),
        "height": Parameter("integer", minimum, maximum, multiple_of, default=height),
    }


def _sampling(steps: tuple[int, int, int], guidance: tuple[float, float, float]) -> dict[str, Parameter]:
    """Return steps and guidance, each from its minimum, maximum and default."""
    return {
        "steps": Parameter("integer", steps[0], steps[1], default=steps[2]),
        "guidance": Parameter("number", guidance[0], guidance[1], default=guidance[2]),
    }


def _references(count: int) -> dict[str, Parameter]:
    names = ["input_image", *(f"input_image_{number}" for number in range(2, count + 1))]
    return {name: Parameter("image", encodings=(BASE64, URL)) for name in names}


def _finetune(strength: float) -> dict[str, Parameter]:
    return {
        "finetune_id": Parameter("text", required=True),
        "finetune_strength": Parameter("number", 0, 2, default=strength),
    }


# CometAPI's page requires a prompt for every model.
_PROMPT = Parameter("text", default="", overrides={COMETAPI: {"required": True}})
_REQUIRED_PROMPT = Parameter("text", required=True)
_IMAGE = Parameter("image", encodings=(BASE64,))
_REQUIRED_IMAGE = replace(_IMAGE, required=True)
# CometAPI's page documents a URL, but CometAPI forwards requests to an API that takes base64, so both are valid there.
_IMAGE_PROMPT = Parameter("image", encodings=(BASE64,), overrides={COMETAPI: {"encodings": (URL, BASE64)}})
_UPSAMPLING = {"prompt_upsampling": Parameter("boolean", default=False)}
_COMMON = {
    "seed": Parameter("integer"),
    "webhook_url": Parameter("url", maximum=2083),
    "webhook_secret": Parameter("text"),
}

_FROM_TEXT = {"prompt": _PROMPT, "image_prompt": _IMAGE_PROMPT, **_UPSAMPLING, **_safety(6), **_output("jpeg")}
_FLUX_1 = {**_FROM_TEXT, **_size(256, 1440, 32, 1024, 768)}
_ULTRA = {
    **_FROM_TEXT,
    "image_prompt_strength": Parameter("number", 0, 1, default=0.1),
    "aspect_ratio": Parameter("ratio", max_aspect_ratio="21:9", default="16:9"),
    "raw": Parameter("boolean", default=False),
}
_KONTEXT = {
    "prompt": _REQUIRED_PROMPT,
    **_references(4),
    "aspect_ratio": Parameter("ratio", max_aspect_ratio="4:1"),
    **_UPSAMPLING,
    **_safety(6),
    **_output("png"),
}
_EDIT = {"prompt": _PROMPT, "image": _REQUIRED_IMAGE, **_UPSAMPLING, **_safety(6), **_output("jpeg")}
_FILL = {**_EDIT, "mask": _IMAGE, **_sampling((15, 50, 50), (1.5, 100, 60))}
_EXPAND = {
    **_EDIT,
    **{side: Parameter("integer", 0, 2048, default=0) for side in ("top", "bottom", "left", "right")},
    **_sampling((15, 50, 50), (1.5, 100, 60)),
}
_CONTROL = {
    "prompt": _PROMPT,
    "control_image": _IMAGE,
    "preprocessed_image": _IMAGE,
    **_sampling((15, 50, 50), (1, 100, 30)),
    **_UPSAMPLING,
    **_safety(6),
    **_output("jpeg"),
}
_CANNY = {
    "canny_low_threshold": Parameter("integer", 0, 500, default=50),
    "canny_high_threshold": Parameter("integer", 0, 500, default=200),
}
# The documented default size of 0 lets the model choose and is below its own minimum, so it is None here.
_FLUX_2 = {"prompt": _REQUIRED_PROMPT, **_size(64, None, 16, None, None), **_safety(5), **_output("jpeg")}
_FLEX = {
    **_FLUX_2,
    **_references(8),
    "input_image_blob_path": Parameter("text"),
    **_sampling((1, 50, 50), (1.5, 10, 5.0)),
    "prompt_upsampling": Parameter("boolean", default=True),
}
_RATIOS = "auto 21:9 2:1 16:9 3:2 7:5 4:3 5:4 1:1 4:5 3:4 5:7 2:3 9:16 1:2 9:21"
_FLUX_3 = {
    "prompt": _REQUIRED_PROMPT,
    "images": Parameter("images", maximum=10, encodings=(BASE64, URL)),
    "aspect_ratio": Parameter("choice", choices=tuple(_RATIOS.split()), default="auto"),
    "resolution": Parameter("choice", choices=("768sq", "1k", "1.5k", "2k", "4k"), default="1k"),
    "grounding": Parameter("boolean", default=True),
    **_safety(4),
    "version": Parameter("text", default="latest"),
}
_FOUR_MEGAPIXELS = 2048 * 2048
_BY_RATIO = dict.fromkeys(("width", "height"), "use aspect_ratio")
_BY_MARGINS = {"width": "use left and right", "height": "use top and bottom"}
_BY_IMAGE = dict.fromkeys(("width", "height", "aspect_ratio"), "the result has the size of the image")


def _text_to_image(parameters: dict[str, Parameter], typical_seconds: float, **options: Any) -> Model:
    return Model({**parameters, **_COMMON}, typical_seconds, any_of=("prompt", "image_prompt"), **options)


def _flux_2(parameters: dict[str, Parameter], typical_seconds: float) -> Model:
    return Model({**parameters, **_COMMON}, typical_seconds, max_pixels=_FOUR_MEGAPIXELS)


MODELS: dict[str, Model] = {
    "flux-pro-1.1": _text_to_image(_FLUX_1, 5),
    "flux-pro-1.1-ultra": _text_to_image(_ULTRA, 10, alternatives=_BY_RATIO),
    "flux-pro-1.1-ultra-finetuned": _text_to_image({**_ULTRA, **_finetune(1.2)}, 12, alternatives=_BY_RATIO),
    "flux-pro": _text_to_image(
        {**_FLUX_1, **_sampling((1, 50, 40), (1.5, 5, 2.5)), "interval": Parameter("number", 1, 4, default=2)}, 10
    ),
    "flux-dev": _text_to_image({**_FLUX_1, **_sampling((1, 50, 28), (1.5, 5, 3.0))}, 5),
    "flux-kontext-pro": Model({**_KONTEXT, **_COMMON}, 8, alternatives=_BY_RATIO),
    "flux-kontext-max": Model({**_KONTEXT, **_COMMON}, 10, alternatives=_BY_RATIO),
    "flux-pro-1.0-fill": Model({**_FILL, **_COMMON}, 10, alternatives=_BY_IMAGE),
    "flux-pro-1.0-fill-finetuned": Model({**_FILL, **_finetune(1.1), **_COMMON}, 12, alternatives=_BY_IMAGE),
    "flux-pro-1.0-expand": Model({**_EXPAND, **_COMMON}, 10, alternatives=_BY_MARGINS),
    "flux-pro-1.0-canny": Model(
        {**_CONTROL, **_CANNY, **_COMMON}, 10, any_of=("control_image", "preprocessed_image"), alternatives=_BY_IMAGE
    ),
    "flux-pro-1.0-depth": Model(
        {**_CONTROL, **_COMMON}, 10, any_of=("control_image", "preprocessed_image"), alternatives=_BY_IMAGE
    ),
    "flux-2-max": _flux_2({**_FLUX_2, **_references(8)}, 20),
    "flux-2-pro": _flux_2({**_FLUX_2, **_references(8)}, 8),
    "flux-2-pro-preview": _flux_2({**_FLUX_2, **_references(8)}, 8),
    "flux-2-flex": _flux_2(_FLEX, 20),
    "flux-2-klein-4b": _flux_2({**_FLUX_2, **_references(4)}, 2),
    "flux-2-klein-9b": _flux_2({**_FLUX_2, **_references(4)}, 2),
    "flux-2-klein-9b-preview": _flux_2({**_FLUX_2, **_references(4)}, 2),
    "flux-3-image": Model(_FLUX_3, 30, forbid_extra=True, alternatives={**_BY_RATIO, "input_image": "use images"}),
}
"""All catalogued models; requests for any other model are sent without validation."""


def output_format(model: str, parameters: Mapping[str, Any]) -> str:
    """Return the file format of the image that ``parameters`` request: ``"jpeg"``, ``"png"`` or ``"webp"``."""
    requested = str(parameters.get("output_format") or "").strip().lower()
    parameter = MODELS[model].parameters.get("output_format") if model in MODELS else None
    return requested or (parameter.default if parameter else "jpeg")


def accepts(model: str, name: str) -> bool:
    """Return whether ``model`` takes the parameter ``name``; always True for an unknown model."""
    return model not in MODELS or name in MODELS[model].parameters


def check_model(model: Any) -> str:
    """Return ``model`` if it is a valid path segment of the submit URL.

    :raises FluxBadRequestError: if it is empty or contains anything but letters, digits, ``.``, ``_`` and ``-``.
    """
    if not isinstance(model, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model):
        raise FluxBadRequestError(f"{model!r} is not the name of a FLUX model; a name looks like 'flux-pro-1.1'.")
    return model
