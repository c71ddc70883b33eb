"""Draw the image of a job: a landscape with the prompt, the model and the seed written on it.

The landscape depends on prompt, model and seed, the bytes on the arguments only, so a test can compare two runs by
checksum.
"""

from __future__ import annotations

import colorsys
import io
import math
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
Colour = tuple[int, int, int]


@lru_cache(maxsize=8)
def render(prompt: str, model: str, seed: int, width: int, height: int, file_format: str) -> bytes:
    """Return the encoded image.

    :param file_format: ``png``, ``jpeg`` or ``webp``.
    """
    image = _landscape(random.Random(f"{model} {seed} {prompt}"), width, height)  # noqa: S311 - not used for security
    _caption(image, prompt, f"{model}  ·  seed {seed}")
    file = io.BytesIO()
    image.save(file, file_format, **_ENCODING[file_format])
    return file.getvalue()


def _landscape(choose: random.Random, width: int, height: int) -> Image.Image:
    # Everything is drawn in fractions of the size, so a seed gives the same landscape at any size.
    hue, turn = choose.random(), choose.choice((-1, 1)) * choose.uniform(0.06, 0.16)
    is_night = choose.random() < 0.3
    top, horizon = (0.16, 0.42) if is_night else (choose.uniform(0.45, 0.62), choose.uniform(0.78, 0.88))
    haze = _colour(hue + turn, horizon, 0.75)
    sky = Image.new("RGB", (1, 3))
    sky.putdata([_colour(hue, top, 0.6), _colour(hue + turn / 2, (top + horizon) / 2, 0.65), haze])
    image = sky.resize((width, height), Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(image, "RGBA")
    _sun(draw, choose, width, height, _colour(hue + turn * 1.5, 0.93, 0.9))
    ridges, roughness = choose.randrange(4, 7), choose.uniform(0.3, 0.75)
    for number in range(1, ridges + 1):
        nearness = number / ridges
        lightness = horizon * (1 - nearness) ** 1.2 * 0.9 + 0.12
        base = 0.42 + 0.4 * nearness + choose.uniform(-0.03, 0.03)
        fill = _colour(hue + turn * (1 - nearness), lightness, 0.45 + 0.15 * nearness)
        _ridge(draw, choose, width, height, base, 0.2 - 0.08 * nearness, roughness, fill)
    return image


def _colour(hue: float, lightness: float, saturation: float) -> Colour:
    red, green, blue = colorsys.hls_to_rgb(hue % 1, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def _sun(draw: ImageDraw.ImageDraw, choose: random.Random, width: int, height: int, colour: Colour) -> None:
    x, y = choose.uniform(0.2, 0.8) * width, choose.uniform(0.15, 0.4) * height
    radius = choose.uniform(0.06, 0.13) * min(width, height)
    for factor, alpha in ((3.4, 16), (2.6, 20), (1.9, 28), (1.4, 40), (1, 255)):
        size = radius * factor
        draw.ellipse((x - size, y - size, x + size, y + size), (*colour, alpha))


def _ridge(
    draw: ImageDraw.ImageDraw,
    choose: random.Random,
    width: int,
    height: int,
    base: float,
    swing: float,
    roughness: float,
    fill: Colour,
) -> None:
    """Draw a ridge from side to side: waves, each finer and lower than the one before, by ``roughness``."""
    waves = [(choose.uniform(0.7, 1.3) * 1.9**octave, choose.uniform(0, math.tau)) for octave in range(6)]
    steps = 96
    line = []
    for step in range(steps + 1):
        x = step / steps
        rise = sum(
            roughness**octave * math.sin(math.tau * pace * x + phase) for octave, (pace, phase) in enumerate(waves)
        )
        line.append((x * width, (base - swing / 2 * rise) * height))
    draw.polygon([(0, height), *line, (width, height)], fill)


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
    draw.rectangle((0, top, image.width, image.height), fill=(0, 0, 0, 120))
    for number, line in enumerate(lines):
        draw.text((margin, top + margin + number * size * 1.3), line, font=font, fill=(255, 255, 255, 255))
