"""A file in memory with a maximum size, for reading stored or remote files of unknown size."""

from __future__ import annotations

import io
from typing import Any


class FileTooLargeError(Exception):
    """A file is larger than its reader accepts."""


class CappedFile(io.BytesIO):
    """A file in memory that refuses to grow beyond ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        super().__init__()
        self._max_bytes = max_bytes

    def write(self, data: Any) -> int:
        """Write ``data``.

        :raises FileTooLargeError: if the file would become larger than ``max_bytes``.
        """
        if self.tell() + len(data) > self._max_bytes:
            raise FileTooLargeError(f"The file is larger than {self._max_bytes} bytes.")
        return super().write(data)
