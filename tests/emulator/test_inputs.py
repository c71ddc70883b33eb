"""The limits of input images, and masks."""

from __future__ import annotations

import base64
import io

import pytest
from PIL import Image, PngImagePlugin

from .conftest import Api, message, png


@pytest.mark.parametrize("value", ["", "not base64", base64.b64encode(b"no image").decode(), png()[:60]])
@pytest.mark.parametrize(("model", "field"), [("flux-dev", "image_prompt"), ("flux-3-image", "images")])
def test_text_that_is_not_an_image_is_rejected(api: Api, model: str, field: str, value: str) -> None:
    for sent in (value, [value]) if field == "images" else (value,):
        response = api.submit(model, **{field: sent})
        assert response.status_code == 400
        assert field in message(response)


def test_url_is_rejected_where_base64_is_required(comet: Api, bfl: Api) -> None:
    url = "https://example.com/a.png"
    assert bfl.submit("flux-dev", image_prompt=url).status_code == 400
    assert comet.submit("flux-dev", image_prompt=url).status_code == 200
    assert comet.submit("flux-pro-1.0-fill", image=url).status_code == 400


def test_image_above_20_megapixels_is_rejected(bfl: Api) -> None:
    response = bfl.submit("flux-2-pro", input_image=png(5000, 4016))
    assert response.status_code == 400
    assert "20 megapixels" in message(response)


@pytest.mark.parametrize("size", [(255, 512), (512, 255)])
@pytest.mark.parametrize(
    ("model", "field"), [("flux-dev", "image_prompt"), ("flux-pro-1.0-fill", "image"), ("flux-3-image", "images")]
)
def test_image_with_a_side_below_256_pixels_is_rejected(
    api: Api, model: str, field: str, size: tuple[int, int]
) -> None:
    image = png(*size)
    response = api.submit(model, **{field: [image] if field == "images" else image})
    assert response.status_code == 400
    assert f"{field}: each side must have at least 256 pixels" in message(response)


def test_mask_of_another_size_than_its_image_is_rejected(api: Api) -> None:
    image, mask = png(512, 300), png(300, 512)
    response = api.submit("flux-pro-1.0-fill", image=image, mask=mask)
    assert response.status_code == 400
    assert "mask: must have the same size as image" in message(response)
    assert api.submit("flux-pro-1.0-fill", image=image, mask=image).status_code == 200


def test_mask_is_compared_with_the_displayed_size_of_a_rotated_photo(api: Api) -> None:
    exif, file = Image.Exif(), io.BytesIO()
    exif[0x0112] = 6
    Image.new("RGB", (512, 300)).save(file, "JPEG", exif=exif)
    photo = base64.b64encode(file.getvalue()).decode()
    assert api.submit("flux-pro-1.0-fill", image=photo, mask=png(300, 512)).status_code == 200
    assert api.submit("flux-pro-1.0-fill", image=photo, mask=png(512, 300)).status_code == 400


def test_png_with_a_long_text_is_accepted_unless_truncated(api: Api) -> None:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    info.add_text("workflow", "x" * 2_000_000, zip=True)
    Image.new("RGB", (300, 300)).save(file, "PNG", pnginfo=info)
    data = file.getvalue()
    for sent, status in ((data, 200), (data[:-20], 400)):
        response = api.submit("flux-2-pro", input_image=base64.b64encode(sent).decode())
        assert response.status_code == status


def test_input_limits_of_tools_and_flux_3(bfl: Api) -> None:
    def problem(model: str, **parameters: object) -> str:
        response = bfl.submit(model, **parameters)
        assert response.status_code == 400, response.text
        return message(response)

    assert "4 megapixels" in problem("flux-tools/deblur-v1", image=png(2048, 2049))
    assert "16 megapixels" in problem("flux-3-image", images=png(4096, 4097))
    assert "same size" in problem("flux-tools/erase-v1", image=png(), mask=png(300, 300))
    canvas = {"width": 1024, "height": 512, "mode": "fast"}
    assert "base64" in problem("flux-tools/outpainting-v1", input_image="https://example.com/a.png", **canvas)
    assert "8 times" in problem("flux-tools/outpainting-v1", input_image=png(640, 64), **canvas)
    url = {"input_image": "https://example.com/a.png", **canvas, "mode": "high"}
    assert bfl.submit("flux-tools/outpainting-v1", **url).status_code == 200
