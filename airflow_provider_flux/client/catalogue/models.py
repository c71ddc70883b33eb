"""What each FLUX model takes: the catalogue, as data. Adding a model is adding one entry to ``MODELS``.

Sources: https://docs.bfl.ml/api-reference and https://api.bfl.ai/openapi.json (April 2026); the limits of FLUX.2 from
https://help.bfl.ai/articles/4029171097-flux-2-technical-specifications; for FLUX 3
https://docs.bfl.ai/flux_3/flux3_image_overview; what CometAPI documents apart, from
https://apidoc.cometapi.com/api/image/flux/flux-generate-image, which leaves each model's ranges to Black Forest Labs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from airflow_provider_flux.client.gateways import COMETAPI
from airflow_provider_flux.exceptions import FluxBadRequestError

Kind = Literal["integer", "number", "boolean", "text", "choice", "ratio", "url", "image", "images"]
URL, BASE64 = "url", "base64"


@dataclass(frozen=True, slots=True)
class Parameter:
    """What one field of a request may hold.

    :param kind: How its value is read and checked; ``ratio`` is ``"width:height"``.
    :param low: Least value.
    :param high: Greatest value; of a ``url`` its length, of ``images`` how many.
    :param step: Every value is a multiple of it.
    :param default: What the API takes if the field is not sent; None if it documents none.
    :param choices: The words of a ``choice``.
    :param widest: The ``ratio`` that is farthest from square, lying; standing it may be as far.
    :param required: Whether the API refuses a request without it.
    :param forms: How an image may be sent, the gateway's own word first: ``"url"``, ``"base64"`` (also in a data: URI).
    :param at: What is different at one gateway: its name -> these fields.
    """

    kind: Kind
    low: float | None = None
    high: float | None = None
    step: int | None = None
    default: Any = None
    choices: tuple[str, ...] = ()
    widest: str | None = None
    required: bool = False
    forms: tuple[str, ...] = ()
    at: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def on(self, gateway: str) -> Parameter:
        """Return the parameter as ``gateway`` documents it."""
        return replace(self, at={}, **self.at[gateway]) if gateway in self.at else self


@dataclass(frozen=True, slots=True)
class Model:
    """What one model takes.

    :param parameters: Its fields.
    :param typical: About how many seconds it needs until an image is ready.
    :param one_of: Fields of which one at least must be given.
    :param pixels: The most that ``width`` times ``height`` may be.
    :param strict: Whether the API refuses a field that it does not know, rather than ignore it.
    :param instead: Fields of other models that it has no use for -> what to give instead.
    """

    parameters: Mapping[str, Parameter]
    typical: float
    one_of: tuple[str, ...] = ()
    pixels: int | None = None
    strict: bool = False
    instead: Mapping[str, str] = field(default_factory=dict)

    def on(self, gateway: str) -> dict[str, Parameter]:
        """Return its parameters as ``gateway`` documents them."""
        return {name: parameter.on(gateway) for name, parameter in self.parameters.items()}


def _output(default: str) -> dict[str, Parameter]:
    return {"output_format": Parameter("choice", choices=("jpeg", "png", "webp"), default=default)}


# CometAPI's page has 0 to 6 for all models, but leaves the ranges to each model's own page, and passes requests on to
# an API that refuses more. So the model's own limit holds at both gateways: what one of them refuses is no use.
def _safety(high: int) -> dict[str, Parameter]:
    return {"safety_tolerance": Parameter("integer", 0, high, default=2)}


def _size(low: int, high: int | None, step: int, width: int | None, height: int | None) -> dict[str, Parameter]:
    return {
        "width": Parameter("integer", low, high, step, default=width),
        "height": Parameter("integer", low, high, step, default=height),
    }


def _sampling(steps: tuple[int, int, int], guidance: tuple[float, float, float]) -> dict[str, Parameter]:
    """Return steps and guidance, each given as least, greatest and default."""
    return {
        "steps": Parameter("integer", steps[0], steps[1], default=steps[2]),
        "guidance": Parameter("number", guidance[0], guidance[1], default=guidance[2]),
    }


def _references(most: int) -> dict[str, Parameter]:
    names = ["input_image", *(f"input_image_{number}" for number in range(2, most + 1))]
    return {name: Parameter("image", forms=(BASE64, URL)) for name in names}


def _finetune(strength: float) -> dict[str, Parameter]:
    return {
        "finetune_id": Parameter("text", required=True),
        "finetune_strength": Parameter("number", 0, 2, default=strength),
    }


# CometAPI's page requires a prompt of every model.
_PROMPT = Parameter("text", default="", at={COMETAPI: {"required": True}})
_REQUIRED_PROMPT = Parameter("text", required=True)
_IMAGE = Parameter("image", forms=(BASE64,))
_REQUIRED_IMAGE = replace(_IMAGE, required=True)
# CometAPI's page wants a URL here. It passes requests on to an API that wants base64, so neither is refused there.
_IMAGE_PROMPT = Parameter("image", forms=(BASE64,), at={COMETAPI: {"forms": (URL, BASE64)}})
_UPSAMPLING = {"prompt_upsampling": Parameter("boolean", default=False)}
_COMMON = {
    "seed": Parameter("integer"),
    "webhook_url": Parameter("url", high=2083),
    "webhook_secret": Parameter("text"),
}

_FROM_TEXT = {"prompt": _PROMPT, "image_prompt": _IMAGE_PROMPT, **_UPSAMPLING, **_safety(6), **_output("jpeg")}
_FLUX_1 = {**_FROM_TEXT, **_size(256, 1440, 32, 1024, 768)}
_ULTRA = {
    **_FROM_TEXT,
    "image_prompt_strength": Parameter("number", 0, 1, default=0.1),
    "aspect_ratio": Parameter("ratio", widest="21:9", default="16:9"),
    "raw": Parameter("boolean", default=False),
}
_KONTEXT = {
    "prompt": _REQUIRED_PROMPT,
    **_references(4),
    "aspect_ratio": Parameter("ratio", widest="4:1"),
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
# The documented default of 0 means "as the model likes" and is itself below the least value, so it is none here.
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
    "images": Parameter("images", high=10, forms=(BASE64, URL)),
    "aspect_ratio": Parameter("choice", choices=tuple(_RATIOS.split()), default="auto"),
    "resolution": Parameter("choice", choices=("768sq", "1k", "1.5k", "2k", "4k"), default="1k"),
    "grounding": Parameter("boolean", default=True),
    **_safety(4),
    "version": Parameter("text", default="latest"),
}
_FOUR_MEGAPIXELS = 2048 * 2048
_BY_RATIO = dict.fromkeys(("width", "height"), "give aspect_ratio")
_BY_MARGINS = {"width": "give left and right", "height": "give top and bottom"}
_BY_IMAGE = dict.fromkeys(("width", "height", "aspect_ratio"), "the size is that of the image")


def _text_to_image(parameters: dict[str, Parameter], typical: float, **more: Any) -> Model:
    return Model({**parameters, **_COMMON}, typical, one_of=("prompt", "image_prompt"), **more)


def _flux_2(parameters: dict[str, Parameter], typical: float) -> Model:
    return Model({**parameters, **_COMMON}, typical, pixels=_FOUR_MEGAPIXELS)


MODELS: dict[str, Model] = {
    "flux-pro-1.1": _text_to_image(_FLUX_1, 5),
    "flux-pro-1.1-ultra": _text_to_image(_ULTRA, 10, instead=_BY_RATIO),
    "flux-pro-1.1-ultra-finetuned": _text_to_image({**_ULTRA, **_finetune(1.2)}, 12, instead=_BY_RATIO),
    "flux-pro": _text_to_image(
        {**_FLUX_1, **_sampling((1, 50, 40), (1.5, 5, 2.5)), "interval": Parameter("number", 1, 4, default=2)}, 10
    ),
    "flux-dev": _text_to_image({**_FLUX_1, **_sampling((1, 50, 28), (1.5, 5, 3.0))}, 5),
    "flux-kontext-pro": Model({**_KONTEXT, **_COMMON}, 8, instead=_BY_RATIO),
    "flux-kontext-max": Model({**_KONTEXT, **_COMMON}, 10, instead=_BY_RATIO),
    "flux-pro-1.0-fill": Model({**_FILL, **_COMMON}, 10, instead=_BY_IMAGE),
    "flux-pro-1.0-fill-finetuned": Model({**_FILL, **_finetune(1.1), **_COMMON}, 12, instead=_BY_IMAGE),
    "flux-pro-1.0-expand": Model({**_EXPAND, **_COMMON}, 10, instead=_BY_MARGINS),
    "flux-pro-1.0-canny": Model(
        {**_CONTROL, **_CANNY, **_COMMON}, 10, one_of=("control_image", "preprocessed_image"), instead=_BY_IMAGE
    ),
    "flux-pro-1.0-depth": Model(
        {**_CONTROL, **_COMMON}, 10, one_of=("control_image", "preprocessed_image"), instead=_BY_IMAGE
    ),
    "flux-2-max": _flux_2({**_FLUX_2, **_references(8)}, 20),
    "flux-2-pro": _flux_2({**_FLUX_2, **_references(8)}, 8),
    "flux-2-pro-preview": _flux_2({**_FLUX_2, **_references(8)}, 8),
    "flux-2-flex": _flux_2(_FLEX, 20),
    "flux-2-klein-4b": _flux_2({**_FLUX_2, **_references(4)}, 2),
    "flux-2-klein-9b": _flux_2({**_FLUX_2, **_references(4)}, 2),
    "flux-2-klein-9b-preview": _flux_2({**_FLUX_2, **_references(4)}, 2),
    "flux-3-image": Model(_FLUX_3, 30, strict=True, instead={**_BY_RATIO, "input_image": "give images"}),
}
"""All models that are known here; any other is passed on as it is."""


def output_format(model: str, parameters: Mapping[str, Any]) -> str:
    """Return the file format that ``model`` gives for ``parameters``: ``"jpeg"``, ``"png"`` or ``"webp"``."""
    asked = str(parameters.get("output_format") or "").strip().lower()
    known = MODELS[model].parameters.get("output_format") if model in MODELS else None
    return asked or (known.default if known else "jpeg")


def accepts(model: str, name: str) -> bool:
    """Tell whether ``model`` may be given the parameter; of an unknown model everything is believed."""
    return model not in MODELS or name in MODELS[model].parameters


def check_model(model: Any) -> str:
    """Return ``model`` if it can stand in the submit URL's path.

    :raises FluxBadRequestError: if it is empty or holds anything but letters, digits, ``.``, ``_``, ``-``.
    """
    if not isinstance(model, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", model):
        raise FluxBadRequestError(f"{model!r} is not the name of a FLUX model; a name looks like 'flux-pro-1.1'.")
    return model
