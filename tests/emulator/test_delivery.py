"""Downloads: real images of the requested size that depend on the seed, and links that expire."""

from __future__ import annotations

import io
import re
from typing import Any

import httpx
import pytest
from PIL import Image

from .conftest import Api, fetch, png


@pytest.mark.parametrize(
    ("model", "parameters", "file_format", "size"),
    [
        ("flux-dev", {}, "JPEG", (1024, 768)),
        ("flux-dev", {"width": 256, "height": 1440, "output_format": "webp"}, "WEBP", (256, 1440)),
        ("flux-2-pro", {"width": 64, "height": 64, "output_format": "png"}, "PNG", (64, 64)),
        ("flux-2-pro", {"output_format": None}, "JPEG", (1024, 1024)),
        ("flux-pro-1.1-ultra", {}, "JPEG", (2736, 1536)),
        ("flux-kontext-pro", {"aspect_ratio": "3:7"}, "PNG", (672, 1568)),
        ("flux-kontext-pro", {"input_image": png(300, 300)}, "PNG", (1024, 1024)),
        ("flux-pro-1.0-fill", {"image": png(301, 263)}, "JPEG", (301, 263)),
        ("flux-pro-1.0-expand", {"image": png(300, 260), "left": 10, "bottom": 7}, "JPEG", (310, 267)),
        ("flux-3-image", {"resolution": "2k"}, "JPEG", (2048, 2048)),
        ("flux-3-image-klein", {"width": 1000, "height": 700}, "JPEG", (1000, 700)),
        ("flux-2-pro", {"width": 1440, "height": 810}, "JPEG", (1440, 816)),
        ("flux-2-pro", {"width": 4096, "height": 2048}, "JPEG", (2896, 1440)),
        ("flux-2-pro", {"input_image": png(320, 256)}, "JPEG", (320, 256)),
        ("flux-tools/deblur-v1", {"image": png(301, 263)}, "PNG", (301, 263)),
        ("flux-tools/vto-v2", {"person": png(301, 263), "garment": png()}, "JPEG", (301, 263)),
        ("flux-tools/outpainting-v1", {"input_image": png(), "width": 333, "height": 300}, "PNG", (333, 300)),
    ],
)
def test_image_has_the_requested_format_and_size(
    bfl: Api, model: str, parameters: dict[str, Any], file_format: str, size: tuple[int, int]
) -> None:
    response = fetch(bfl.link(model, **parameters))
    assert response.status_code == 200
    image = Image.open(io.BytesIO(response.content))
    image.load()
    assert (image.format, image.size) == (file_format, size)
    assert response.headers["content-type"] == f"image/{file_format.lower()}"


def test_art_depends_on_prompt_and_seed(bfl: Api) -> None:
    def image(**parameters: Any) -> bytes:
        return fetch(bfl.link("flux-2-pro", output_format="png", width=256, height=256, **parameters)).content

    def above_the_text(data: bytes) -> bytes:
        return Image.open(io.BytesIO(data)).crop((0, 0, 256, 120)).tobytes()

    first = image(seed=1)
    assert image(seed=1) == first
    assert above_the_text(image(seed=2)) != above_the_text(first)
    assert above_the_text(image(seed=1, prompt="something else")) != above_the_text(first)


def test_random_seed_is_reported(api: Api) -> None:
    seeds = {api.result()["result"]["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert {job["seed"] for job in api.emulator.stats()["jobs"]} == seeds


def test_link_expires_and_is_renewed_only_with_renew_links(api: Api) -> None:
    api.emulator.settings(link_ttl=0)
    submitted = api.submit()
    link = api.poll(submitted).json()["result"]["sample"]
    response = fetch(link)
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/xml"
    assert "<Code>AuthenticationFailed</Code>" in response.text
    assert api.poll(submitted).json()["result"]["sample"] == link

    api.emulator.settings(link_ttl=30, renew_links=True)
    renewed = api.poll(submitted).json()["result"]["sample"]
    assert renewed != link
    assert fetch(renewed).status_code == 200


def test_forged_link_returns_403(bfl: Api) -> None:
    link = bfl.link()
    for forged in (link[:-1], re.sub(r"se=\d+", "se=9999999999", link), link.split("?")[0], link + "ä"):
        assert fetch(forged).status_code == 403
    bfl.emulator.reset()
    assert fetch(link).status_code == 404


@pytest.mark.parametrize(("header", "status"), [("Authorization", 400), ("x-key", 200)])
def test_key_sent_to_the_delivery_host_is_counted_as_a_leak(bfl: Api, header: str, status: int) -> None:
    link = bfl.link()
    assert fetch(link, **{header: "emulator-key"}).status_code == status
    assert bfl.emulator.stats()["credential_leaks"] == 1
    assert fetch(link).status_code == 200
    assert bfl.emulator.stats()["downloads"] == 1 + (status == 200)


def test_delivery_host_answers_head_and_range(bfl: Api) -> None:
    link = bfl.link()
    image = fetch(link)
    size = len(image.content)
    head = bfl.http.head(link)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(size), b"")
    assert head.headers["accept-ranges"] == "bytes"
    assert head.headers["etag"] == image.headers["etag"]
    for span, first, last in (("0-9", 0, 9), (f"{size - 5}-", size - 5, size - 1), (f"0-{size * 2}", 0, size - 1)):
        part = fetch(link, Range=f"bytes={span}")
        assert (part.status_code, part.content) == (206, image.content[first : last + 1])
        assert part.headers["content-range"] == f"bytes {first}-{last}/{size}"
    beyond = fetch(link, Range=f"bytes={size}-")
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{size}")
    assert fetch(link, Range="lines=1-2").status_code == 200


def test_links_of_flux_3_live_for_an_hour(bfl: Api) -> None:
    def seconds(model: str) -> float:
        result = bfl.result(model)["result"]
        return float(httpx.URL(result["sample"]).params["se"]) - float(result["end_time"])

    assert seconds("flux-dev") == pytest.approx(600, abs=0.01)
    assert seconds("flux-3-image") == pytest.approx(3600, abs=0.01)


@pytest.mark.parametrize(("file_format", "name"), [("png", b"caBX"), ("jpeg", b"\xff\xeb"), ("webp", b"C2PA")])
def test_images_contain_content_credentials_unless_switched_off(bfl: Api, file_format: str, name: bytes) -> None:
    link = bfl.link("flux-2-pro", output_format=file_format, width=64, height=64)
    with_them = fetch(link).content
    bfl.emulator.settings(content_credentials=False)
    without = fetch(link).content
    added = with_them[with_them.index(name) :]
    assert b"jumdc2pa" in added and b"c2pa\0" in added
    assert b"jumdc2pa" not in without
    pixels = [Image.open(io.BytesIO(data)).tobytes() for data in (with_them, without)]
    assert pixels[0] == pixels[1]


def test_long_prompt_fits_a_small_image(bfl: Api) -> None:
    link = bfl.link("flux-2-pro", prompt="long word" * 500, width=64, height=64)
    assert fetch(link).status_code == 200
