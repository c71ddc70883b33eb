"""celeste-ai: text to image, edits, and both FLUX 3 models."""

import asyncio
import base64
import sys
from typing import Any

import celeste
from celeste.artifacts import ImageArtifact

INPUT = [ImageArtifact(data=base64.b64decode(sys.argv[1]), mime_type="image/png")]
REQUESTS: list[tuple[str, dict[str, Any]]] = [
    ("flux-2-pro", {"seed": 7, "aspect_ratio": "1920x1080"}),
    ("flux-2-pro", {"reference_images": INPUT}),
    ("flux-3-image", {"quality": "768sq", "reference_images": INPUT}),
    ("flux-3-image-klein", {"quality": "768sq", "seed": 7, "steps": 4}),
]


async def main() -> None:
    for model, parameters in REQUESTS:
        output = await celeste.images.generate("a red kite", model=model, api_key="emulator-key", **parameters)
        print("image", output.content.url)


asyncio.run(main())
