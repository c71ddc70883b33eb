"""The FLUX Tools, which edit an image: the reference is extended, cleaned, sharpened, or dressed.

Sources: https://docs.bfl.ml and https://api.bfl.ai/openapi.json (September 2026).
"""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_flux.client.catalogue.fields import (
    COMMON,
    FLAG,
    FOUR_MEGAPIXELS,
    IMAGE_OR_URL,
    REQUIRED_PROMPT,
    SEED,
    USER,
    WEBHOOK,
    output,
    safety,
    sides,
)
from airflow_provider_flux.client.catalogue.schema import InputLimits, Model, Parameter

_REFERENCE = replace(IMAGE_OR_URL, required=True)
_BY_IMAGE = dict.fromkeys(("width", "height", "aspect_ratio"), "the result has the size of the image")
_OUTPAINTING = {
    "input_image": replace(_REFERENCE, base64_only_if=("mode", "fast")),
    **sides(Parameter("integer", 64, required=True)),
    "reference_offset_x": Parameter("integer"),
    "reference_offset_y": Parameter("integer"),
    "auto_crop": FLAG,
    "mode": Parameter("choice", choices=("high", "fast"), default="high"),
    "prompt": Parameter("text"),
    "disable_pup": FLAG,
    **safety(5),
    **output("png"),
    **USER,
    # The documentation has these, the OpenAPI document does not.
    **{name: replace(parameter, is_certain=False) for name, parameter in {"seed": SEED, **WEBHOOK}.items()},
}
_ERASE = {
    "image": _REFERENCE,
    "mask": replace(_REFERENCE, same_size_as="image"),
    "dilate_pixels": Parameter("integer", 0, 25, default=10),
    **safety(5),
    **output("png"),
    **COMMON,
}
_DEBLUR = {"image": _REFERENCE, **safety(5), **output("png"), **COMMON}
_TRY_ON = {
    "prompt": REQUIRED_PROMPT,
    "person": _REFERENCE,
    "garment": _REFERENCE,
    **safety(5),
    **output("jpeg"),
    **COMMON,
}

FLUX_TOOLS = {
    "flux-tools/outpainting-v1": Model(
        _OUTPAINTING,
        15,
        max_pixels=FOUR_MEGAPIXELS,
        inputs=InputLimits(min_side=64),
        forbid_extra=True,
        alternatives={"aspect_ratio": "use width and height"},
    ),
    "flux-tools/erase-v1": Model(_ERASE, 10, alternatives=_BY_IMAGE),
    "flux-tools/deblur-v1": Model(_DEBLUR, 10, inputs=InputLimits(FOUR_MEGAPIXELS), alternatives=_BY_IMAGE),
    "flux-tools/vto-v1": Model(_TRY_ON, 15),
    "flux-tools/vto-v2": Model(_TRY_ON, 15),
}
"""The catalogue's entries of the FLUX Tools."""
