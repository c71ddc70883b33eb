"""The pixels decide whether a file is an image: nothing beside them makes it bad, and none of them may be missing."""

from __future__ import annotations

import contextlib
import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable
from typing import Any

import PIL.Image
import PIL.PngImagePlugin
import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_flux.images.pixels import MAX_PIXELS, BrokenImageError, NotAnImageError, examine

SIZE = (40, 24)
MEGABYTE = 1024 * 1024


def encode(format_: str, mode: str = "RGB", **options: Any) -> bytes:
    file = io.BytesIO()
    PIL.Image.effect_noise(SIZE, 90).convert(mode).save(file, format_, **options)
    return file.getvalue()


def movie(format_: str) -> bytes:
    frames = [PIL.Image.effect_noise(SIZE, sigma).convert("RGB") for sigma in (30, 60, 90)]
    file = io.BytesIO()
    frames[0].save(file, format_, save_all=True, append_images=frames[1:])
    return file.getvalue()


def interlaced() -> bytes:
    """A PNG as Pillow reads but does not write it: Adam7, every pass with rows of its own."""
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    rows = b""
    for x, y, across, down in passes:
        rows += b"".join(b"\0" + bytes(len(range(x, SIZE[0], across))) for _ in range(y, SIZE[1], down))
    head = struct.pack(">IIBBBBB", *SIZE, 8, 0, 0, 0, 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def chunk(name: bytes, content: bytes, crc: int | None = None) -> bytes:
    crc = zlib.crc32(name + content) if crc is None else crc
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


PNGS = [encode("PNG", mode) for mode in ("RGB", "RGBA", "L", "P", "1", "LA", "I;16")] + [interlaced(), movie("PNG")]
JPEGS = [
    *(encode("JPEG", mode) for mode in ("RGB", "L", "CMYK")),
    encode("JPEG", progressive=True),
    encode("JPEG", restart_marker_blocks=1),
    encode("JPEG", restart_marker_rows=1, progressive=True),
    encode("JPEG", quality=100, subsampling=0, exif=b"Exif\0\0" + encode("JPEG")),
]
WEBPS = [
    encode("WEBP"),
    encode("WEBP", lossless=True),
    encode("WEBP", "RGBA"),
    encode("WEBP", "RGBA", lossless=True, exif=b"II*\0", icc_profile=b"none", xmp=b"<x/>"),
    movie("WEBP"),
]
IMAGES = st.sampled_from(PNGS + JPEGS + WEBPS)


def size_of(data: bytes) -> tuple[int, int]:
    """The size of an image whose every pixel decodes, and of its thumbnail, which must be the same."""
    picture = examine(data)
    picture.decode()
    assert picture.thumbnail(100).size == picture.displayed
    return picture.width, picture.height


def test_every_kind_of_image_is_accepted() -> None:
    assert {size_of(data) for data in PNGS + JPEGS + WEBPS} == {SIZE}


@given(IMAGES, st.binary() | IMAGES.map(lambda image: image[1:]) | IMAGES)
def test_trailing_bytes_are_ignored(image: bytes, rest: bytes) -> None:
    assert size_of(image + rest) == SIZE


@given(IMAGES, st.data())
def test_truncated_image_is_refused(image: bytes, data: st.DataObject) -> None:
    with pytest.raises((BrokenImageError, NotAnImageError)):
        size_of(image[: data.draw(st.integers(0, len(image) - 1))])


@given(st.sampled_from(PNGS + JPEGS), st.data())
def test_truncated_image_with_padding_is_refused(image: bytes, data: st.DataObject) -> None:
    cut = data.draw(st.integers(len(image) // 2, len(image) - 13))
    with pytest.raises(BrokenImageError):
        size_of(image[:cut] + data.draw(st.sampled_from([b"\0", b"\xff"])) * (len(image) - cut))


@given(IMAGES, st.data())
def test_corrupt_image_raises_only_known_errors(image: bytes, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(image) - 1))
    damaged = image[:at] + data.draw(st.binary(min_size=1, max_size=8)) + image[at + data.draw(st.integers(0, 8)) :]
    with contextlib.suppress(BrokenImageError, NotAnImageError):
        size_of(damaged)


TEXTS = ("tEXt", "zTXt", "iTXt", "iCCP", "eXIf", "tIME", "pHYs", "gAMA", "cHRM", "sRGB", "tRNS", "acTL", "fcTL", "caBX")


@given(st.sampled_from(PNGS), st.sampled_from(TEXTS), st.binary(), st.none() | st.just(7), st.data())
def test_ancillary_png_chunks_are_ignored(
    image: bytes, name: str, content: bytes, crc: int | None, data: st.DataObject
) -> None:
    places, at = [], 8
    while at < len(image):
        at += 12 + int.from_bytes(image[at : at + 4])
        places.append(at)
    at = data.draw(st.sampled_from(places[:-1]))
    assert size_of(image[:at] + chunk(name.encode(), content, crc) + image[at:]) == SIZE


@given(
    st.sampled_from(JPEGS),
    st.sampled_from([0xFE, *range(0xE0, 0xF0)]),
    st.sampled_from([b"", b"JFIF\0", b"Exif\0\0", b"ICC_PROFILE\0", b"MPF\0II*\0", b"Photoshop 3.0\0", b"Adobe"]),
    st.binary() | IMAGES,
)
def test_ancillary_jpeg_segments_are_ignored(image: bytes, marker: int, begin: bytes, content: bytes) -> None:
    content = begin + content
    segment = bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
    for at in (2, image.rindex(b"\xff\xda")):
        assert size_of(image[:at] + segment + image[at:]) == SIZE


@given(st.sampled_from(WEBPS), st.sampled_from([b"EXIF", b"XMP ", b"ICCP", b"C2PA"]), st.binary(), st.booleans())
def test_ancillary_webp_chunks_are_ignored(image: bytes, name: bytes, content: bytes, honest: bool) -> None:
    length = len(content) if honest else 2**31
    added = name + struct.pack("<I", length) + content + b"\0" * (len(content) % 2)
    size = struct.pack("<I", len(image) + len(added) - 8)
    assert size_of(image[:4] + size + image[8:] + added) == SIZE


def big_text(kind: str) -> dict[str, Any]:
    info = PIL.PngImagePlugin.PngInfo()
    if kind == "many":
        for number in range(70):
            info.add_text(f"part {number}", "x" * MEGABYTE, zip=True)
    elif kind == "zTXt":
        info.add_text("parameters", "x" * (3 * MEGABYTE), zip=True)
    elif kind == "iTXt":
        info.add_itxt("XML:com.adobe.xmp", "x" * (3 * MEGABYTE), zip=True)
    else:
        return {"icc_profile": b"x" * (3 * MEGABYTE)}
    return {"pnginfo": info}


@pytest.mark.parametrize("kind", ["zTXt", "iTXt", "iCCP", "many"])
def test_png_with_large_texts_is_accepted(kind: str) -> None:
    data = encode("PNG", **big_text(kind))
    with pytest.raises(ValueError, match="MAX_TEXT"), PIL.Image.open(io.BytesIO(data)) as image:
        image.load()
    assert size_of(data) == SIZE


def png_of(width: int, height: int) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    data, size = encode("JPEG"), struct.pack(">HH", *reversed(SIZE))
    return data.replace(size, struct.pack(">HH", height, width), 1)


def jpeg_with_two_frames(width: int, height: int) -> bytes:
    data = encode("JPEG")
    at = data.index(b"\xff\xc0")
    frame = data[at : at + 5] + struct.pack(">HH", height, width) + data[at + 9 : at + 19]
    return data[: at + 19] + frame + data[at + 19 :]


def webp_of(width: int, height: int) -> bytes:
    canvas = b"\x10\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", 10) + canvas + encode("WEBP")[12:]
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize("make", [png_of, jpeg_of, jpeg_with_two_frames, webp_of])
def test_false_dimensions_allocate_no_memory(
    make: Callable[[int, int], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    monkeypatch.setattr("PIL.Image.core.new", lambda *arguments: made.append(arguments))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Pillow's own, which leaves such sizes alone
        for size in ((60_000, 60_000), (MAX_PIXELS // 9000 + 1, 9000)):
            picture = examine(make(*size))
            for use in (picture.decode, lambda: picture.thumbnail(100)):  # noqa: B023 - called within this turn
                with pytest.raises(BrokenImageError):
                    use()
    assert not made


def exif(orientation: int, order: str = "<") -> bytes:
    head = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 1)
    return b"Exif\0\0" + head + struct.pack(order + "HHIH", 0x0112, 3, 1, orientation) + bytes(6)


@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_read(format_: str, orientation: int) -> None:
    # Its upper left quarter is white; where is it when the picture is upright?
    source = PIL.Image.new("RGB", (64, 32))
    source.paste("white", (0, 0, 32, 16))
    file = io.BytesIO()
    source.save(file, format_, exif=exif(orientation, ">" if orientation % 2 else "<"))
    picture = examine(file.getvalue())
    upright = picture.thumbnail(100)
    assert ((picture.width, picture.height), picture.orientation) == ((64, 32), orientation)
    assert upright.size == picture.displayed == ((64, 32) if orientation < 5 else (32, 64))
    across, down = upright.size
    corners = [(across * x // 4, down * y // 4) for y in (1, 3) for x in (1, 3)]
    bright = [index for index, corner in enumerate(corners) if upright.getpixel(corner)[0] > 128]  # type: ignore[index]  # RGB
    assert bright == [{1: 0, 2: 1, 3: 3, 4: 2, 5: 0, 6: 1, 7: 3, 8: 2}[orientation]]


@given(st.binary() | st.binary().map(lambda rest: exif(6)[: len(rest)] + rest) | st.integers(9, 65535).map(exif))
def test_invalid_exif_is_ignored(content: bytes) -> None:
    picture = examine(encode("JPEG", exif=content))
    assert (picture.width, picture.height) == SIZE
    assert picture.displayed in (SIZE, SIZE[::-1])


def test_verification_is_thread_safe() -> None:
    before = (PIL.PngImagePlugin.MAX_TEXT_CHUNK, PIL.Image.MAX_IMAGE_PIXELS, list(warnings.filters))
    good, bad, wrong = encode("PNG", **big_text("zTXt")), png_of(60_000, 60_000), []

    def look() -> None:
        for _ in range(20):
            if size_of(good) != SIZE:
                wrong.append("a good image is refused")
            try:
                size_of(bad)
                wrong.append("a huge image is taken")
            except BrokenImageError:
                pass

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert (PIL.PngImagePlugin.MAX_TEXT_CHUNK, PIL.Image.MAX_IMAGE_PIXELS, list(warnings.filters)) == before
