"""Content credentials in the emulator's images, as in those of Black Forest Labs' API.

Source: https://help.bfl.ai/articles/3705384267-c2pa-in-flux-generated-images ("All images generated via the Black
Forest Labs API", December 2025). The manifest store is structurally valid and not signed: a C2PA validator finds it,
and rejects it.
"""

from __future__ import annotations

import struct
import zlib

_UUID_TAIL = bytes.fromhex("0011 0010 8000 00AA00389B71")
"""What follows the four letters of a type in its UUID."""


def _box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content) + 8) + kind + content


def _superbox(kind: bytes, label: str, *boxes: bytes) -> bytes:
    """Return a JUMBF box (ISO/IEC 19566-5) whose description says that it has a label and may be referred to."""
    description = kind + _UUID_TAIL + b"\x03" + label.encode() + b"\0"
    return _box(b"jumb", _box(b"jumd", description) + b"".join(boxes))


_NOTE = _superbox(b"json", "org.example.note", _box(b"json", b'{"note": "drawn by an emulator; not signed"}'))
_ASSERTIONS = _superbox(b"c2as", "c2pa.assertions", _NOTE)
_MANIFEST = _superbox(b"c2ma", "urn:c2pa:00000000-0000-4000-8000-000000000000", _ASSERTIONS)
MANIFEST_STORE = _superbox(b"c2pa", "c2pa", _MANIFEST)


def with_content_credentials(image: bytes, file_format: str) -> bytes:
    """Return the image with a manifest store, where C2PA embeds it.

    :param image: As Pillow encodes it.
    :param file_format: ``png``, ``jpeg`` or ``webp``.
    """
    return {"png": _in_png, "jpeg": _in_jpeg, "webp": _in_webp}[file_format](image)


def _in_png(image: bytes) -> bytes:
    chunk = b"caBX" + MANIFEST_STORE
    after_header = 8 + 25
    return (
        image[:after_header]
        + struct.pack(">I", len(MANIFEST_STORE))
        + chunk
        + struct.pack(">I", zlib.crc32(chunk))
        + image[after_header:]
    )


def _in_jpeg(image: bytes) -> bytes:
    # JPEG XT's frame of a box: its name, the number of the box, and that of the segment.
    content = b"JP" + struct.pack(">HI", 1, 1) + MANIFEST_STORE
    after_jfif = 4 + int.from_bytes(image[4:6])
    return image[:after_jfif] + b"\xff\xeb" + struct.pack(">H", len(content) + 2) + content + image[after_jfif:]


def _in_webp(image: bytes) -> bytes:
    padding = b"\0" * (len(MANIFEST_STORE) % 2)
    body = image[8:] + b"C2PA" + struct.pack("<I", len(MANIFEST_STORE)) + MANIFEST_STORE + padding
    return b"RIFF" + struct.pack("<I", len(body)) + body
