"""LiteLLM: text to image, and an edit, which LiteLLM downloads itself."""

import base64
import io
import sys

import litellm

made = litellm.image_generation("a red kite", model="black_forest_labs/flux-pro-1.1", size="512x512")
print("image", made.data[0].url)
edited = litellm.image_edit(
    image=io.BytesIO(base64.b64decode(sys.argv[1])),
    prompt="a red kite",
    model="black_forest_labs/flux-kontext-pro",
)
print("image", edited.data[0].url)
