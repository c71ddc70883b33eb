"""Is a file one whole image? The only place that opens an image with Pillow.

The pixels decide. Everything else - texts, color profiles, EXIF, XMP, bytes behind the image's end - is never
given to a decoder: Pillow refuses an image for a text of more than 1 MB, and for a lot else that it does not parse.
So each file is taken apart (``segments.py``), and Pillow sees only the parts that pixels are made of.

Pillow's own limits and Python's warning filters belong to the whole process and are left alone: images are checked in
several threads at once.
"""

from __future__ import annotations

import contextlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from airflow_provider_flux.images.segments import (
    EOI,
    SOI,
    SOS,
    Data,
    format_of,
    jpeg_segments,
    png_chunks,
    webp_chunks,
    webp_end,
)

if TYPE_CHECKING:
    import PIL.Image

MAX_PIXELS = 89_478_485
"""Largest image that is decoded: Pillow's own limit, 256 MB of RGB."""

_ORIENTATION, _SHORT = 0x0112, 3
# What makes an image upright, by its orientation, in Pillow's words.
_TURNS = {
    2: "FLIP_LEFT_RIGHT",
    3: "ROTATE_180",
    4: "FLIP_TOP_BOTTOM",
    5: "TRANSPOSE",
    6: "ROTATE_270",
    7: "TRANSVERSE",
    8: "ROTATE_90",
}
_ON_ITS_SIDE = (5, 6, 7, 8)


class NotAnImageError(ValueError):
    """The file is not a PNG, JPEG or WebP image."""


class BrokenImageError(ValueError):
    """The image is cut off, or its pixels do not decode; the message says which, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Picture:
    """An image as its file describes it, complete to its end; :meth:`decode` finds out whether it is true.

    :param format: ``"png"``, ``"jpeg"`` or ``"webp"``, as found in the file.
    :param width: Pixels, as stored.
    :param height: Pixels, as stored.
    :param orientation: How it is displayed, 1 to 8, as EXIF counts; 1 is upright.
    :param parts: The file without whatever is not needed for its pixels.
    """

    format: str
    width: int
    height: int
    orientation: int
    parts: bytes

    @property
    def content_type(self) -> str:
        """The MIME type."""
        return f"image/{self.format}"

    @property
    def displayed(self) -> tuple[int, int]:
        """Width and height in pixels, as displayed: a phone stores what it takes upright lying on its side."""
        return (self.height, self.width) if self.orientation in _ON_ITS_SIDE else (self.width, self.height)

    def decode(self) -> None:
        """Decode every pixel of the image, or of the first one if it moves.

        :raises BrokenImageError: if one cannot be decoded, or they are more than ``MAX_PIXELS``.
        """
        with self._open() as image:
            image.load()

    def thumbnail(self, side: int) -> PIL.Image.Image:
        """Return the image upright, as RGB or RGBA, shrunk to at most ``side`` pixels a side.

        :raises BrokenImageError: if it cannot be decoded, or has more than ``MAX_PIXELS`` pixels.
        """
        import PIL.Image

        with self._open() as image:
            image.draft("RGB", (side, side))
            small: PIL.Image.Image = image if image.mode in ("RGB", "RGBA") else image.convert("RGBA")
            small.thumbnail((side, side))
            turn = _TURNS.get(self.orientation)
            return small.transpose(PIL.Image.Transpose[turn]) if turn else small

    @contextlib.contextmanager
    def _open(self) -> Iterator[PIL.Image.Image]:
        import PIL.Image

        if self.width * self.height > MAX_PIXELS:
            raise BrokenImageError(f"it claims to be {self.width}x{self.height}, more than is decoded")
        try:
            image = PIL.Image.open(io.BytesIO(self.parts), formats=[self.format.upper()])
            if image.size != (self.width, self.height):
                raise BrokenImageError("its header is damaged")
            yield image
        except BrokenImageError:
            raise
        except PIL.UnidentifiedImageError as error:
            raise BrokenImageError("its header is damaged") from error
        except Exception as error:
            # Decoders of broken files raise nearly anything: OSError, ValueError, SyntaxError, struct.error.
            raise BrokenImageError(str(error)) from error


def examine(data: Data) -> Picture:
    """Return what the image in ``data`` is, without decoding it.

    Memory is bounded by the size of the file, whatever it claims to hold.

    :raises NotAnImageError: if it does not begin as a PNG, JPEG or WebP image.
    :raises BrokenImageError: if it has no size, or its end is missing.
    """
    format_ = format_of(data)
    if format_ is None:
        raise NotAnImageError("it is not a PNG, JPEG or WebP image")
    try:
        picture = _READERS[format_](data)
    except (IndexError, struct.error):
        raise BrokenImageError("its header is damaged") from None
    if not picture.width or not picture.height:
        raise BrokenImageError("it has no size")
    return picture


def _png(data: Data) -> Picture:
    parts, orientation = io.BytesIO(), 1
    parts.write(data[:8])
    width, height, _depth, color = struct.unpack_from(">IIBB", data, 16)
    if data[12:16] != b"IHDR":
        raise BrokenImageError("its header is damaged")
    needed = {b"IHDR", b"IDAT", b"IEND"} | ({b"PLTE"} if color == 3 else set())
    # Transparent colors, which Pillow takes for granted to be of the right length.
    longest = {0: (2,), 2: (6,), 3: range(1, 257)}.get(color, ())
    name = b""
    for name, begin, end in png_chunks(data):
        if name in needed or (name == b"tRNS" and end - begin - 12 in longest and _is_sound(data, begin, end)):
            parts.write(data[begin:end])
        elif name == b"eXIf" and _is_sound(data, begin, end):
            orientation = _orientation(data[begin + 8 : end - 4])
        needed -= {b"IHDR"}
    if name != b"IEND":
        raise _cut_off()
    return Picture("png", width, height, orientation, parts.getvalue())


def _is_sound(data: Data, at: int, end: int) -> bool:
    return zlib.crc32(data[at + 4 : end - 4]) == int.from_bytes(data[end - 4 : end])


_COM = 0xFE
_FRAMES = set(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_APP0, _APP1, _APP14 = 0xE0, 0xE1, 0xEE


def _jpeg(data: Data) -> Picture:
    parts, orientation, has_scan = io.BytesIO(), 1, False
    size: tuple[int, int] | None = None
    parts.write(data[:2])
    for marker, begin, end in jpeg_segments(data):
        if marker == EOI and has_scan:
            if size is None:
                break
            parts.write(b"\xff\xd9")
            return Picture("jpeg", *size, orientation, parts.getvalue())
        if marker in (SOI, EOI):
            raise BrokenImageError("an image begins or ends within it")
        content = begin + 4
        if marker in _FRAMES and size is None:
            height, width = struct.unpack_from(">HH", data, content + 1)
            size = width, height
        has_scan = has_scan or marker == SOS
        if _APP0 <= marker < _APP0 + 16 or marker == _COM:
            if marker == _APP1 and orientation == 1 and data[content : content + 6] == b"Exif\0\0":
                orientation = _orientation(data[content:end])
            if not _is_about_colors(marker, data[content:end]):
                continue
        parts.write(data[begin:end])
    raise _cut_off()


def _is_about_colors(marker: int, content: bytes) -> bool:
    """Tell whether libjpeg looks at the segment to find out what the colors are."""
    if marker == _APP0:
        return content.startswith(b"JFIF\0") and len(content) >= 14
    return marker == _APP14 and content.startswith(b"Adobe") and len(content) >= 12


def _webp(data: Data) -> Picture:
    file_end, orientation = webp_end(data), 1
    size: tuple[int, int] | None = None
    if file_end > len(data):
        raise _cut_off()
    parts = io.BytesIO()
    for name, begin, end in webp_chunks(data):
        length, content = end - begin - 8, data[begin + 8 : min(end, file_end)]
        if name == b"EXIF":
            orientation = _orientation(content)
        if name not in _WEBP_SIZES and name not in (b"ALPH", b"ANIM", b"ANMF"):
            continue
        if len(content) < length:
            raise _cut_off()
        if name in _WEBP_SIZES and size is None:
            size = _WEBP_SIZES[name](content)
        if name == b"VP8X":
            # Of what was announced, only the alpha channel and the movement are still there.
            content = bytes([content[0] & 0x12]) + content[1:]
        parts.write(name + length.to_bytes(4, "little") + content + b"\0" * (length % 2))
    if size is None:
        raise BrokenImageError("its header is damaged")
    body = parts.getvalue()
    head = b"RIFF" + (len(body) + 4).to_bytes(4, "little") + b"WEBP"
    return Picture("webp", *size, orientation, head + body)


def _size_of_canvas(content: bytes) -> tuple[int, int]:
    return int.from_bytes(content[4:7], "little") + 1, int.from_bytes(content[7:10], "little") + 1


def _size_of_lossy(content: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", content, 6)
    return width & 0x3FFF, height & 0x3FFF


def _size_of_lossless(content: bytes) -> tuple[int, int]:
    (bits,) = struct.unpack_from("<I", content, 1)
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


_WEBP_SIZES: dict[bytes, Callable[[bytes], tuple[int, int]]] = {
    b"VP8X": _size_of_canvas,
    b"VP8 ": _size_of_lossy,
    b"VP8L": _size_of_lossless,
}
_READERS: dict[str, Callable[[Data], Picture]] = {"png": _png, "jpeg": _jpeg, "webp": _webp}


def _orientation(exif: bytes) -> int:
    """Return how EXIF wants an image to be displayed; 1, upright, if it does not say so or makes no sense.

    Of a TIFF directory this reads one field: Pillow reads all of them, and warns or gives up at the first bad one.
    """
    while exif.startswith(b"Exif\0\0"):
        exif = exif[6:]
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(exif[:4])
    if order is None:
        return 1
    with contextlib.suppress(struct.error):
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for number in range(count):
            tag, kind, length, value = struct.unpack_from(f"{order}HHIH", exif, at + 2 + 12 * number)
            if (tag, kind, length) == (_ORIENTATION, _SHORT, 1):
                return value if 1 <= value <= 8 else 1
    return 1


def _cut_off() -> BrokenImageError:
    return BrokenImageError("it is cut off")
