"""Only one whole image counts."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import PIL.Image
import PIL.PngImagePlugin
import pytest

from airflow_provider_flux.exceptions import FluxBadImageError
from airflow_provider_flux.images.verification import save_verified

FORMATS = ["PNG", "JPEG", "WEBP"]


def encode(format_: str, size: tuple[int, int] = (96, 64)) -> bytes:
    image = PIL.Image.effect_noise(size, 90).convert("RGB")
    file = io.BytesIO()
    image.save(file, format_)
    return file.getvalue()


@pytest.mark.parametrize("format_", FORMATS)
def test_properties_are_read_from_the_file(format_: str, tmp_path: Path) -> None:
    data, path = encode(format_), tmp_path / "x"
    image = save_verified(iter([data[:10], data[10:]]), path, "abc")
    assert (image.format, image.width, image.height) == (format_.lower(), 96, 64)
    assert image.content_type == f"image/{format_.lower()}"
    assert (image.bytes, image.sha256) == (len(data), hashlib.sha256(data).hexdigest())
    assert path.read_bytes() == data


@pytest.mark.parametrize("format_", FORMATS)
@pytest.mark.parametrize("missing", [1, 2, 3, 12, 100, 0.5, 0.9])
def test_truncated_download_is_refused(format_: str, missing: float, tmp_path: Path) -> None:
    data = encode(format_)
    cut = int(len(data) * missing) if isinstance(missing, float) else missing
    with pytest.raises(FluxBadImageError, match="Job abc is finished and was billed"):
        save_verified([data[:-cut]], tmp_path / "x", "abc")


@pytest.mark.parametrize("format_", FORMATS)
def test_trailing_bytes_of_a_download_are_ignored(format_: str, tmp_path: Path) -> None:
    assert save_verified([encode(format_) + b"\n"], tmp_path / "x", "abc").width == 96


def test_metadata_does_not_fail_a_paid_image(tmp_path: Path) -> None:
    text, file = PIL.PngImagePlugin.PngInfo(), io.BytesIO()
    text.add_text("parameters", "x" * 2_000_000, zip=True)
    PIL.Image.new("RGB", (96, 64)).save(file, "PNG", pnginfo=text, icc_profile=b"x" * 2_000_000)
    # A signature or a phone's video may hold what looks like the begin of a scan.
    for number, data in enumerate([file.getvalue(), encode("JPEG") + b"\xff\xda\0\x0c", encode("JPEG") * 2 + b"\0"]):
        path = tmp_path / str(number)
        assert save_verified([data], path, "abc").width == 96
        assert path.read_bytes() == data


def test_a_jpeg_with_a_second_picture_behind_the_first_is_a_jpeg(tmp_path: Path) -> None:
    first, second = (PIL.Image.effect_noise((96, 64), sigma).convert("RGB") for sigma in (90, 30))
    file = io.BytesIO()
    first.save(file, "MPO", save_all=True, append_images=[second])
    image = save_verified([file.getvalue()], tmp_path / "x", "abc")
    assert (image.format, image.content_type, image.width) == ("jpeg", "image/jpeg", 96)
    assert (
        save_verified([file.getvalue()[:-100]], tmp_path / "x", "abc").width == 96
    )  # every pixel of the first is there
    with pytest.raises(FluxBadImageError, match="cut off"):
        save_verified([file.getvalue()[:2000]], tmp_path / "x", "abc")


@pytest.mark.parametrize(
    "data",
    [b"", b"<html>Sorry</html>", b"\x89PNG\r\n\x1a\n" + b"\0" * 200, b"GIF89a" + b"\0" * 50, b"%PDF-1.7"],
)
def test_file_that_is_not_an_image_is_refused(data: bytes, tmp_path: Path) -> None:
    with pytest.raises(FluxBadImageError, match="job abc"):
        save_verified([data], tmp_path / "x", "abc")


def test_gif_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FluxBadImageError, match="not a PNG, JPEG or WebP"):
        save_verified([encode("GIF")], tmp_path / "x", "abc")


def test_flipped_bit_in_a_png_is_refused(tmp_path: Path) -> None:
    data = bytearray(encode("PNG"))
    data[len(data) // 2] ^= 1
    with pytest.raises(FluxBadImageError, match="broken"):
        save_verified([bytes(data)], tmp_path / "x", "abc")


def test_download_stops_at_max_bytes(tmp_path: Path) -> None:
    def endless() -> object:
        while True:
            yield b"\0" * 1024

    with pytest.raises(FluxBadImageError, match="larger than max_bytes=10000"):
        save_verified(endless(), tmp_path / "x", "abc", max_bytes=10_000)  # type: ignore[arg-type]
    assert (tmp_path / "x").stat().st_size <= 10_000


def test_a_decompression_bomb_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    PIL.Image.new("1", (20_000, 20_000)).save(file, "PNG")
    with pytest.raises(FluxBadImageError, match="broken"):
        save_verified([file.getvalue()], tmp_path / "x", "abc")
