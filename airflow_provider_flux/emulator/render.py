"""Draw the image of a job: random art with the prompt, the model and the seed written on it.

The art depends on prompt, model and seed, the bytes on the arguments only, so a test can compare two runs by checksum.
"""

from __future__ import annotations

import io
import random
import textwrap
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

MEDIA_TYPES = {"png": "image/png", "jpeg": "image/jpeg", "webp": "image/webp"}
# Fast rather than small, because a test waits for it.
_ENCODING: dict[str, dict[str, int]] = {
    "png": {"compress_level": 1},
    "jpeg": {"quality": 85},
    "webp": {"quality": 80, "method": 0},
}


@lru_cache(maxsize=8)
def render(prompt: str, model: str, seed: int, width: int, height: int, file_format: str) -> bytes:
    """Return the encoded image.

    :param file_format: ``png``, ``jpeg`` or ``webp``.
    """
    image = _art(f"{model} {seed} {prompt}", width, height)
    _caption(image, prompt, f"{model}  ·  seed {seed}")
    file = io.BytesIO()
    image.save(file, file_format, **_ENCODING[file_format])
    return file.getvalue()


def _art(seed: str, width: int, height: int) -> Image.Image:
    # Everything is drawn in fractions of the size, so a seed gives the same art at any size.
    choose = random.Random(seed)  # noqa: S311 - not used for security

    def colour() -> tuple[int, int, int]:
        return choose.randrange(256), choose.randrange(256), choose.randrange(256)

    ground = Image.new("RGB", (4, 4))
    ground.putdata([colour() for _ in range(16)])
    image = ground.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image, "RGBA")
    for _ in range(12):
        x, y, radius, peak = choose.random(), choose.random(), choose.uniform(0.04, 0.22), choose.random()
        left, right = int((x - radius) * width), int((x + radius) * width)
        top, bottom = int((y - radius) * height), int((y + radius) * height)
        fill = (*colour(), choose.randrange(60, 180))
        if choose.random() < 0.5:
            draw.ellipse((left, top, right, bottom), fill)
        else:
            draw.polygon([(left, bottom), (right, bottom), (left + peak * (right - left), top)], fill)
    return image


def _caption(image: Image.Image, prompt: str, footer: str) -> None:
    size = max(9, min(image.size) // 26)
    margin = size // 2
    font = ImageFont.load_default(size)
    columns = max(8, int((image.width - 2 * margin) / (size * 0.52)))
    rows = max(1, image.height // (2 * size) - 2)
    lines = textwrap.wrap(" ".join(prompt.split()), columns, max_lines=rows, placeholder=" …")
    lines += textwrap.wrap(footer, columns)
    top = image.height - int(len(lines) * size * 1.3) - 2 * margin
    draw = ImageDraw.Draw(image, "RGBA")
    draw.rectangle((0, top, image.width, image.height), fill=(0, 0, 0, 150))
    for number, line in enumerate(lines):
        draw.text((margin, top + margin + number * size * 1.3), line, font=font, fill=(255, 255, 255, 255))
