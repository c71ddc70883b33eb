"""What a PNG, JPEG or WebP file consists of: its chunks, or segments, in the order of the file.

Nothing is decoded or copied, and no content makes a walk fail: it ends where the file does. Bytes behind the image's
end are no part of it: the second picture of a camera, a phone's video, a signature.
"""

from __future__ import annotations

import mmap
import re
from collections.abc import Iterator
from typing import TypeAlias

Data: TypeAlias = bytes | mmap.mmap
"""A file's content, in memory or mapped into it."""

SOI, EOI, SOS = 0xD8, 0xD9, 0xDA
"""Markers of a JPEG: begin and end of an image, begin of a scan."""

_SIGNATURES = {
    "png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "jpeg": re.compile(rb"\xff\xd8\xff"),
    "webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
}
# Those without a length and without a meaning outside of a scan, and within it no end of it, are left out.
_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])")


def format_of(data: Data) -> str | None:
    """Return ``"png"``, ``"jpeg"`` or ``"webp"``, by how the file begins; None if it is none of them."""
    return next((name for name, signature in _SIGNATURES.items() if signature.match(data)), None)


def png_chunks(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, begin and end of each whole chunk, up to ``IEND``.

    https://www.w3.org/TR/png-3/#5Chunk-layout: length, type, content and checksum of each chunk.
    """
    name, end = b"", 8
    while name != b"IEND":
        begin, length, name = end, int.from_bytes(data[end : end + 4]), data[end + 4 : end + 8]
        end += 12 + length
        if end > len(data):
            return
        yield name, begin, end


def jpeg_segments(data: Data) -> Iterator[tuple[int, int, int]]:
    """Yield marker, begin and end of each segment, up to ``EOI``; what is encoded in a scan belongs to its segment.

    https://www.w3.org/Graphics/JPEG/itu-t81.pdf, annex B: segments, each with a marker and mostly with a length.
    Whatever stands between segments is skipped, as libjpeg does.
    """
    marker, end = 0, 2
    while marker not in (SOI, EOI) and (found := _MARKER.search(data, end)):
        marker, begin, end = found[1][0], found.start(), found.end()
        if marker not in (SOI, EOI):
            end += max(2, int.from_bytes(data[end : end + 2]))
        if marker == SOS:
            after = _MARKER.search(data, end)
            end = after.start() if after else len(data)
        yield marker, begin, end


def webp_chunks(data: Data) -> Iterator[tuple[bytes, int, int]]:
    """Yield name, begin and announced end of each chunk; only the last one may end behind the file's end.

    https://developers.google.com/speed/webp/docs/riff_container: name, length and content of each chunk.
    """
    at, file_end = 12, min(webp_end(data), len(data))
    while at + 8 <= file_end:
        begin, length = at, int.from_bytes(data[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
        yield data[begin : begin + 4], begin, begin + 8 + length


def webp_end(data: Data) -> int:
    """Return where the file says that it ends."""
    return int.from_bytes(data[4:8], "little") + 8
