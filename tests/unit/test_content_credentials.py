"""Content credentials are found where C2PA embeds them, and nothing else passes for them."""

from __future__ import annotations

import io
import struct
import zlib

import PIL.Image
import PIL.PngImagePlugin
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.emulator.content_credentials import MANIFEST_STORE, with_content_credentials
from airflow_provider_flux.images.content_credentials import has_content_credentials
from airflow_provider_flux.images.pixels import examine

FORMATS = ("png", "jpeg", "webp")


def encode(format_: str, **options: object) -> bytes:
    file = io.BytesIO()
    PIL.Image.effect_noise((40, 24), 90).convert("RGB").save(file, format_, **options)
    return file.getvalue()


PLAIN = {format_: encode(format_) for format_ in FORMATS}
SIGNED = {format_: with_content_credentials(image, format_) for format_, image in PLAIN.items()}


def jpeg_with(*contents: bytes, marker: int = 0xEB) -> bytes:
    segments = (bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for content in contents)
    return b"\xff\xd8" + b"".join(segments) + PLAIN["jpeg"][2:]


def app11(box: bytes, size: int, header: int = 8, number: int = 7) -> list[bytes]:
    """The contents of APP11 segments with ``size`` bytes of the box each; every segment repeats the box's header."""
    body = box[header:]
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return [b"JP" + struct.pack(">HI", number, index) + box[:header] + part for index, part in enumerate(parts, 1)]


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


@pytest.mark.parametrize("format_", FORMATS)
def test_credentials_are_found_and_the_image_stays_valid(format_: str) -> None:
    assert not has_content_credentials(PLAIN[format_])
    assert has_content_credentials(SIGNED[format_])
    examine(SIGNED[format_]).decode()
    with PIL.Image.open(io.BytesIO(SIGNED[format_])) as image:
        image.load()


@pytest.mark.parametrize("size", [1, 7, 40, 60_000])
def test_jpeg_box_may_span_several_segments(size: int) -> None:
    large = struct.pack(">I4sQ", 1, b"jumb", len(MANIFEST_STORE) + 8 + 200_000) + MANIFEST_STORE[8:] + bytes(200_000)
    other = b"\0\0\0\x10jumb" + bytes(8)
    for box, header in ((MANIFEST_STORE, 8), (large, 16)):
        segments = app11(box[:2000], size, header) if size < 60_000 else app11(box, size, header)
        image = jpeg_with(*app11(other, 100, number=1), *segments)
        assert has_content_credentials(image)
        examine(image).decode()


@given(st.sampled_from(FORMATS), st.data())
def test_truncated_or_corrupt_file_raises_nothing(format_: str, data: st.DataObject) -> None:
    image = SIGNED[format_]
    at = data.draw(st.integers(0, len(image)))
    has_content_credentials(image[:at])
    has_content_credentials(image[:at] + data.draw(st.binary(min_size=1, max_size=8)) + image[at + 4 :])
    assert not has_content_credentials(PLAIN[format_][:at])


@given(st.sampled_from([b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff", b"RIFF\xff\xff\0\0WEBP"]), st.binary())
def test_any_bytes_raise_nothing(begin: bytes, rest: bytes) -> None:
    assert has_content_credentials(begin + rest) in (True, False)


@pytest.mark.parametrize("format_", FORMATS)
def test_credentials_behind_the_end_do_not_count(format_: str) -> None:
    chunks = png_chunk(b"caBX", MANIFEST_STORE) + b"C2PA" + struct.pack("<I", 8) + bytes(8)
    assert not has_content_credentials(PLAIN[format_] + chunks + jpeg_with(*app11(MANIFEST_STORE, 60_000)))


JPEG_XT = b"\0\0\0\x40RESI" + MANIFEST_STORE[8:64]
NOT_LABELLED = MANIFEST_STORE.replace(b"c2pa\0", b"c2pb\0")
OTHER_LABEL = MANIFEST_STORE.replace(b"c2pa\0", b"c2pa.x\0")


@pytest.mark.parametrize(
    "image",
    [
        jpeg_with(b"c2pa " + MANIFEST_STORE, marker=0xFE),
        jpeg_with(b"Exif\0\0" + MANIFEST_STORE, marker=0xE1),
        jpeg_with(*app11(MANIFEST_STORE, 60_000), marker=0xEA),
        jpeg_with(MANIFEST_STORE, b"HDR_RI ver=11 " + MANIFEST_STORE, b"JP", b""),
        jpeg_with(*app11(JPEG_XT, 60_000), *app11(NOT_LABELLED, 60_000), *app11(OTHER_LABEL, 60_000)),
        jpeg_with(*app11(MANIFEST_STORE, 10)[1:]),
        encode("png", exif=b"II*\0c2pa caBX"),
        PLAIN["png"].replace(png_chunk(b"IEND", b""), png_chunk(b"caBX", b"") + png_chunk(b"IEND", b"")),
        PLAIN["png"].replace(png_chunk(b"IEND", b""), png_chunk(b"tEXt", b"caBX\0" + MANIFEST_STORE))
        + PLAIN["png"][-12:],
        encode("webp", exif=b"C2PA" + MANIFEST_STORE, xmp=b"C2PA"),
        encode("gif"),
    ],
    ids=[
        "comment",
        "EXIF",
        "another marker",
        "APP11 without JPEG XT's frame",
        "other boxes",
        "box without its begin",
        "PNG EXIF",
        "empty chunk",
        "PNG text",
        "WebP metadata",
        "GIF",
    ],
)
def test_what_only_resembles_credentials_is_none(image: bytes) -> None:
    assert not has_content_credentials(image)
