"""Does an image file contain content credentials, that is, a C2PA manifest store?

Presence is all that is found out. Whether the credentials are genuine and belong to these pixels takes a C2PA validator
and its list of trusted signers.

Where they are embedded: appendix A of
https://spec.c2pa.org/specifications/specifications/2.2/specs/C2PA_Specification.html. The chunks of PNG and WebP are
C2PA's own. JPEG's APP11 is shared by all JPEG extensions (ISO/IEC 18477-3), so its boxes are distinguished by their
type, and JUMBF boxes (ISO/IEC 19566-5) by their label.
"""

from __future__ import annotations

import re

from airflow_provider_flux.images.segments import Data, format_of, jpeg_segments, png_chunks, webp_chunks, webp_end

_APP11 = 0xEB
# A superbox (whose length may take 8 more bytes) that begins with its description: type, toggles and label.
_MANIFEST_STORE = re.compile(rb".{4}jumb(?:.{8})?.{4}jumd.{16}.c2pa\0", re.DOTALL)
_LONGEST_HEADER = 64


def has_content_credentials(data: Data) -> bool:
    """Return whether content credentials (C2PA) are in the file; they are not verified.

    :param data: A PNG, JPEG or WebP file; anything else, and whatever follows an image's end, has none.
    """
    match format_of(data):
        case "png":
            return any(name == b"caBX" and end - begin > 12 for name, begin, end in png_chunks(data))
        case "webp":
            return any(name == b"C2PA" and begin + 8 < end <= webp_end(data) for name, begin, end in webp_chunks(data))
        case "jpeg":
            return _in_jpeg(data)
    return False


def _in_jpeg(data: Data) -> bool:
    # A box that is too large for one segment continues in others, which repeat its number and its header.
    boxes: dict[bytes, bytes] = {}
    for marker, begin, end in jpeg_segments(data):
        if marker != _APP11 or data[begin + 4 : begin + 6] != b"JP":
            continue
        number, sequence, box = data[begin + 6 : begin + 8], data[begin + 8 : begin + 12], begin + 12
        if data[box + 4 : box + 8] != b"jumb":
            continue
        if int.from_bytes(sequence) == 1:
            boxes[number] = b""
        elif number in boxes:
            box += 16 if data[box : box + 4] == b"\0\0\0\1" else 8
        else:
            continue
        boxes[number] = (boxes[number] + data[box:end])[:_LONGEST_HEADER]
        if _MANIFEST_STORE.match(boxes[number]):
            return True
    return False
