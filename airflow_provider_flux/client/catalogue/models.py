"""What each FLUX model takes: the catalogue, as data. To add a model, add one entry to ``MODELS``.

Sources: https://docs.bfl.ml/api-reference and https://api.bfl.ai/openapi.json (September 2026); for the limits of
FLUX.2, https://help.bfl.ai/articles/4029171097-flux-2-technical-specifications; for FLUX 3,
https://docs.bfl.ai/flux_3/flux3_image_overview; for the differences at CometAPI,
https://apidoc.cometapi.com/api/image/flux/flux-generate-image, which leaves each model's ranges to Black Forest Labs.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from airflow_provider_flux.client.catalogue.fields import (
    COMMON,
    FLAG,
    FOUR_MEGAPIXELS,
    IMAGE,
    MASK,
    PROMPT,
    REQUIRED_IMAGE,
    REQUIRED_PROMPT,
    SEED,
    USER,
    WEBHOOK,
    finetune,
    output,
    references,
    safety,
    sampling,
    sides,
)
from airflow_provider_flux.client.catalogue.flux_tools import FLUX_TOOLS
from airflow_provider_flux.client.catalogue.schema import BASE64, URL, InputLimits, Model, Parameter, Source
from airflow_provider_flux.client.gateways import COMETAPI
from airflow_provider_flux.exceptions import FluxBadRequestError

_COMETAPI_PAGE = Source("https://apidoc.cometapi.com/api/image/flux/flux-generate-image", "2026-11-25")
_KLEIN_PAGE = Source("https://ai-sdk.dev/providers/ai-sdk-providers/black-forest-labs", "2026-11-25")
_FLUX_3_PAGE = Source("https://docs.bfl.ai/flux_3/flux3_image_overview", "2026-11-25")
# CometAPI's page documents a URL, but CometAPI forwards requests to an API that takes base64, so both are valid there.
_IMAGE_PROMPT = replace(IMAGE, overrides={COMETAPI: {"encodings": (URL, BASE64)}})
_UPSAMPLING = {"prompt_upsampling": FLAG}
_NO_UPSAMPLING = {"disable_pup": FLAG}

_TEXT_OR_IMAGE = ("prompt", "image_prompt")
_FROM_TEXT = {"prompt": PROMPT, "image_prompt": _IMAGE_PROMPT, **_UPSAMPLING, **safety(6), **output("jpeg")}
_FLUX_1 = {
    **_FROM_TEXT,
    "width": Parameter("integer", 256, 1440, 32, default=1024),
    "height": Parameter("integer", 256, 1440, 32, default=768),
}
_ULTRA = {
    **_FROM_TEXT,
    "image_prompt_strength": Parameter("number", 0, 1, default=0.1),
    "aspect_ratio": Parameter("ratio", max_aspect_ratio="21:9", default="16:9"),
}
_ULTRA_FINETUNED = {**_ULTRA, **finetune(1.2), "seed": SEED, **WEBHOOK}
_KONTEXT = {
    "prompt": REQUIRED_PROMPT,
    **references(4),
    "aspect_ratio": Parameter("ratio", max_aspect_ratio="7:3"),
    **_UPSAMPLING,
    **safety(6),
    **output("png"),
}
_EDIT = {"prompt": PROMPT, "image": REQUIRED_IMAGE, **_UPSAMPLING, **safety(6), **output("jpeg")}
_FILL = {**_EDIT, "mask": MASK, **sampling((15, 50, 50), (1.5, 100, 60))}
_EXPAND = {
    **_EDIT,
    **{side: Parameter("integer", 0, 2048, default=0) for side in ("top", "bottom", "left", "right")},
    **sampling((15, 50, 50), (1.5, 100, 60)),
}
_CONTROL = {
    "prompt": PROMPT,
    "control_image": IMAGE,
    "preprocessed_image": IMAGE,
    **sampling((15, 50, 50), (1, 100, 30)),
    **_UPSAMPLING,
    **safety(6),
    **output("jpeg"),
}
_CANNY = {
    "canny_low_threshold": Parameter("integer", 0, 500, default=50),
    "canny_high_threshold": Parameter("integer", 0, 500, default=200),
}
# The OpenAPI document allows any size from 64, and the vendor's examples ask for 1440 x 810; the help page says that
# sides are multiples of 16 and that larger images are resized. The documented default of 0 lets the model choose.
_FREE_SIZE = sides(Parameter("integer", 64, rounded_to=16))
_FLUX_2 = {"prompt": REQUIRED_PROMPT, **_FREE_SIZE, **safety(5), **output("jpeg")}
_PRO_2 = {**_FLUX_2, **references(8), **_NO_UPSAMPLING}
_KLEIN = {**_FLUX_2, **references(4)}
_KLEIN_FINETUNED = {**_KLEIN, **finetune()}
_FLEX = {
    **_FLUX_2,
    **references(8),
    "input_image_blob_path": Parameter("text"),
    **sampling((1, 50, 50), (1.5, 10, 5.0)),
    "prompt_upsampling": Parameter("boolean", default=True),
}
_RATIOS = "auto 21:9 2:1 16:9 3:2 7:5 4:3 5:4 1:1 4:5 3:4 5:7 2:3 9:16 1:2 9:21"
_FLUX_3 = {
    "prompt": REQUIRED_PROMPT,
    "images": Parameter("images", maximum=10, encodings=(BASE64, URL)),
    "aspect_ratio": Parameter("choice", choices=tuple(_RATIOS.split()), default="auto"),
    "resolution": Parameter("choice", choices=("768sq", "1k", "1.5k", "2k", "4k"), default="1k"),
    "grounding": Parameter("boolean", default=True),
    **safety(7, certain_maximum=4),
    "version": Parameter("text", default="latest"),
}
# Announced with these fields; no source has their exact ranges.
_FLUX_3_KLEIN = {
    **{name: _FLUX_3[name] for name in ("prompt", "images", "aspect_ratio", "resolution", "safety_tolerance")},
    **sides(Parameter("integer", 64)),
    "steps": Parameter("integer", 1, certain_maximum=16),
    **output("jpeg"),
    "seed": SEED,
    **USER,
}
_BY_RATIO = dict.fromkeys(("width", "height"), "use aspect_ratio")
_BY_MARGINS = {"width": "use left and right", "height": "use top and bottom"}
_BY_IMAGE = dict.fromkeys(("width", "height", "aspect_ratio"), "the result has the size of the image")


def _text_to_image(parameters: dict[str, Parameter], typical_seconds: float, **options: Any) -> Model:
    return Model({**parameters, **COMMON}, typical_seconds, _TEXT_OR_IMAGE, **options)


def _flux_2(parameters: dict[str, Parameter], typical_seconds: float, **options: Any) -> Model:
    return Model({**parameters, **COMMON}, typical_seconds, **{"resized_above": FOUR_MEGAPIXELS, **options})


def _flux_3(parameters: dict[str, Parameter], typical_seconds: float, source: Source, **options: Any) -> Model:
    return Model(parameters, typical_seconds, inputs=InputLimits(16 * 1024**2), source=source, **options)


def _control(parameters: dict[str, Parameter]) -> Model:
    images = ("control_image", "preprocessed_image")
    return Model({**parameters, **COMMON}, 10, images, alternatives=_BY_IMAGE, gateways=(COMETAPI,))


MODELS: dict[str, Model] = {
    "flux-pro-1.1": _text_to_image(_FLUX_1, 5),
    "flux-pro-1.1-ultra": _text_to_image({**_ULTRA, "raw": FLAG}, 10, alternatives=_BY_RATIO),
    "flux-pro-1.1-ultra-finetuned": Model(
        _ULTRA_FINETUNED, 12, _TEXT_OR_IMAGE, alternatives=_BY_RATIO, deprecated_since="2025-10-31"
    ),
    "flux-pro": _text_to_image(
        {**_FLUX_1, **sampling((1, 50, 40), (1.5, 5, 2.5)), "interval": Parameter("number", 1, 4, default=2)},
        10,
        gateways=(COMETAPI,),
        source=_COMETAPI_PAGE,
    ),
    "flux-dev": _text_to_image({**_FLUX_1, **sampling((1, 50, 28), (1.5, 5, 3.0))}, 5),
    "flux-kontext-pro": Model({**_KONTEXT, **COMMON}, 8, alternatives=_BY_RATIO),
    "flux-kontext-max": Model({**_KONTEXT, **COMMON}, 10, alternatives=_BY_RATIO),
    "flux-pro-1.0-fill": Model({**_FILL, **COMMON}, 10, alternatives=_BY_IMAGE),
    "flux-pro-1.0-fill-finetuned": Model(
        {**_FILL, **finetune(1.1), **COMMON}, 12, alternatives=_BY_IMAGE, deprecated_since="2025-10-31"
    ),
    "flux-pro-1.0-expand": Model({**_EXPAND, **COMMON}, 10, alternatives=_BY_MARGINS),
    "flux-pro-1.0-canny": _control({**_CONTROL, **_CANNY}),
    "flux-pro-1.0-depth": _control(_CONTROL),
    "flux-2-max": _flux_2(_PRO_2, 20),
    "flux-2-pro": _flux_2(_PRO_2, 8),
    "flux-2-pro-preview": _flux_2(_PRO_2, 8),
    "flux-2-flex": _flux_2(_FLEX, 20),
    "flux-2-klein-4b": _flux_2(_KLEIN, 2),
    "flux-2-klein-9b": _flux_2(_KLEIN, 2),
    "flux-2-klein-9b-preview": _flux_2(_KLEIN, 2),
    "flux-2-klein-4b-finetuned": _flux_2(_KLEIN_FINETUNED, 3),
    "flux-2-klein-9b-finetuned": _flux_2(_KLEIN_FINETUNED, 3),
    "flux-2-klein-9b-kv-finetuned": _flux_2(_KLEIN_FINETUNED, 3),
    "flux-2-klein-9b-kv-bf16-finetuned": _flux_2(_KLEIN_FINETUNED, 3),
    "flux-2-klein-base-4b-finetuned": _flux_2(_KLEIN_FINETUNED, 10),
    "flux-2-klein-base-9b-finetuned": _flux_2(_KLEIN_FINETUNED, 10),
    "flux-3-image": _flux_3(
        _FLUX_3, 30, _FLUX_3_PAGE, forbid_extra=True, alternatives={**_BY_RATIO, "input_image": "use images"}
    ),
    "flux-3-image-klein": _flux_3(_FLUX_3_KLEIN, 5, _KLEIN_PAGE, alternatives={"input_image": "use images"}),
    **FLUX_TOOLS,
}
"""All catalogued models; requests for any other model are sent without validation."""


def output_format(model: str, parameters: Mapping[str, Any]) -> str:
    """Return the file format of the image that ``parameters`` request: ``"jpeg"``, ``"png"`` or ``"webp"``."""
    requested = str(parameters.get("output_format") or "").strip().lower()
    parameter = MODELS[model].parameters.get("output_format") if model in MODELS else None
    return requested or (parameter.default if parameter else "jpeg")


def accepts(model: str, name: str) -> bool:
    """Return whether ``model`` certainly takes the parameter ``name``; always True for an unknown model."""
    return model not in MODELS or (name in (own := MODELS[model].parameters) and own[name].is_certain)


def check_model(model: Any) -> str:
    """Return ``model`` if it is the name of a model that makes images: one path segment, or two below flux-tools.

    :raises FluxBadRequestError: if it contains anything but letters, digits, ``.``, ``_`` and ``-``, or names a model
        that makes videos.
    """
    segment = r"[A-Za-z0-9][A-Za-z0-9._-]*"
    if not isinstance(model, str) or not re.fullmatch(rf"(flux-tools/)?{segment}", model):
        raise FluxBadRequestError(f"{model!r} is not the name of a FLUX model; a name looks like 'flux-pro-1.1'.")
    if re.search(r"(^|[-/])video", model, re.IGNORECASE):
        raise FluxBadRequestError(f"{model} generates video; this provider stores images.")
    return model


def check_available(model: str, gateway: str) -> None:
    """Refuse a model that ``gateway`` does not offer.

    :raises FluxBadRequestError: naming the gateways that offer it.
    """
    if model in MODELS and gateway not in (offered := MODELS[model].gateways):
        only = " or ".join(offered)
        raise FluxBadRequestError(
            f"{model} is not available at {gateway}, only at {only}; choose another model, or a connection to {only}."
        )
