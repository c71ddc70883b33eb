"""The fields that several models share, or have with other ranges."""

from __future__ import annotations

from dataclasses import replace

from airflow_provider_flux.client.catalogue.schema import BASE64, URL, Parameter
from airflow_provider_flux.client.gateways import COMETAPI

FOUR_MEGAPIXELS = 2048 * 2048

# CometAPI's page requires a prompt for every model.
PROMPT = Parameter("text", default="", overrides={COMETAPI: {"required": True}})
REQUIRED_PROMPT = Parameter("text", required=True)
IMAGE = Parameter("image", encodings=(BASE64,))
REQUIRED_IMAGE = replace(IMAGE, required=True)
IMAGE_OR_URL = replace(IMAGE, encodings=(BASE64, URL))
MASK = replace(IMAGE, same_size_as="image")
FLAG = Parameter("boolean", default=False)
SEED = Parameter("integer")
USER = {"user": Parameter("text", maximum=256)}
WEBHOOK = {"webhook_url": Parameter("url", maximum=2083), "webhook_secret": Parameter("text")}
COMMON = {"seed": SEED, **WEBHOOK, **USER}


def output(default: str) -> dict[str, Parameter]:
    """Return the file format of the image."""
    return {"output_format": Parameter("choice", choices=("jpeg", "png", "webp"), default=default)}


def safety(maximum: int, certain_maximum: int | None = None) -> dict[str, Parameter]:
    """Return the tolerance of the moderation, from 0.

    CometAPI's page gives 0 to 6 for all models, but leaves the ranges to each model's own page and forwards requests to
    an API that refuses higher values. So the model's own limit applies at both gateways.
    """
    return {"safety_tolerance": Parameter("integer", 0, maximum, default=2, certain_maximum=certain_maximum)}


def sampling(steps: tuple[int, int, int], guidance: tuple[float, float, float]) -> dict[str, Parameter]:
    """Return steps and guidance, each from its minimum, maximum and default."""
    return {
        "steps": Parameter("integer", steps[0], steps[1], default=steps[2]),
        "guidance": Parameter("number", guidance[0], guidance[1], default=guidance[2]),
    }


def sides(parameter: Parameter) -> dict[str, Parameter]:
    """Return width and height."""
    return {"width": parameter, "height": parameter}


def references(count: int) -> dict[str, Parameter]:
    """Return the fields of ``count`` reference images."""
    names = ["input_image", *(f"input_image_{number}" for number in range(2, count + 1))]
    return dict.fromkeys(names, IMAGE_OR_URL)


def finetune(strength: float | None = None) -> dict[str, Parameter]:
    """Return the fields of a fine-tuned model.

    :param strength: The documented default; None if no document has default and range.
    """
    documented = {"certain_maximum": 2} if strength is None else {"maximum": 2, "default": strength}
    return {
        "finetune_id": Parameter("text", required=True),
        "finetune_strength": Parameter("number", 0, **documented),
    }
