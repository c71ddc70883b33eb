"""ReturnedImage: the one image that a DAG author names by what a task returned, and a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from airflow_provider_flux.arguments import is_blank, parse_count, parse_structure
from airflow_provider_flux.exceptions import FluxBadRequestError

_EXPECTED = "it must be what a FLUX operator returned"


@dataclass(frozen=True, slots=True)
class ReturnedImage:
    """One image of a task's result.

    :param result: What the task returned: one image, or a batch.
    :param number: The image's position in it: 0, or the index in the batch.
    """

    result: Mapping[str, Any]
    number: int = 0

    @property
    def is_in_batch(self) -> bool:
        """Whether the result is that of a batch, whose manifest describes the image."""
        return _is_batch(self.result)


def find_returned_image(result: Any, number: Any = None) -> ReturnedImage:
    """Return the image that ``result`` and ``number`` name.

    :param result: What a FLUX operator returned, a list of that (of a mapped task), or either as rendered text.
    :param number: Which image of a batch, or result of a list: a position from 0, or a line of the batch's manifest.
        None: the only one.
    :raises ValueError: if they do not name one image.
    """
    result = parse_structure(result) if isinstance(result, str) else result
    if is_blank(result):
        raise ValueError(f"There is no image: the result is {result!r}, as it is after a skipped task.")
    if isinstance(number, Mapping):
        number = number.get("index")
        if number is None:
            raise ValueError("number is a dict without an index; it must be a line of the batch's manifest.")
    if isinstance(result, Sequence) and not isinstance(result, (str, bytes)):
        return find_returned_image(result[_position(number, len(result), "list", "results")])
    if not isinstance(result, Mapping):
        raise ValueError(f"The result is of type {type(result).__name__}; {_EXPECTED}.")
    if _is_batch(result):
        return ReturnedImage(result, _position(number, result["counts"].get("requested"), "batch", "images"))
    if not isinstance(result.get("id"), str):
        raise ValueError(f"The result does not name a job or a manifest; {_EXPECTED}.")
    if number is not None and _parse_number(number) != 0:
        raise ValueError(f"number is {number!r}, but the result is that of one image.")
    return ReturnedImage(result)


def _parse_number(number: Any) -> int:
    try:
        return parse_count("number", number)
    except FluxBadRequestError as error:
        raise ValueError(error.message) from None


def _is_batch(result: Mapping[str, Any]) -> bool:
    return isinstance(result.get("manifest"), str) and isinstance(result.get("counts"), Mapping)


def _position(number: Any, length: Any, kind: str, content: str) -> int:
    if number is None and length == 1:
        return 0
    if number is None:
        raise ValueError(f"The result is a {kind} of {length} {content}; number must say which, counted from 0.")
    position = _parse_number(number)
    if isinstance(length, int) and position >= length:
        raise ValueError(f"number is {number!r}, but the {kind} has {length} {content}, counted from 0.")
    return position
