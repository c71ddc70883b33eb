"""What an entry of the catalogue consists of: a model, and the fields of its requests.

What is certain is checked before a request is sent. What is only likely is sent, with a notice (:mod:`.notices`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from airflow_provider_flux.client.gateways import BFL, COMETAPI

ParameterType = Literal["integer", "number", "boolean", "text", "choice", "ratio", "url", "image", "images"]
URL, BASE64 = "url", "base64"


@dataclass(frozen=True, slots=True)
class Source:
    """The document that an entry follows.

    :param url: Its address.
    :param checked_on: The ISO date on which all entries that follow it were last compared with it.
    """

    url: str
    checked_on: str


OPENAPI = Source("https://api.bfl.ai/openapi.json", "2026-11-25")


@dataclass(frozen=True, slots=True)
class Parameter:
    """The values that one field of a request takes.

    :param type: How a value is coerced and validated; ``ratio`` is ``"width:height"``.
    :param minimum: Smallest value.
    :param maximum: Largest value; for ``text`` and a ``url`` its length in characters, for ``images`` their number.
    :param multiple_of: Every value is a multiple of this.
    :param default: What the API uses if the field is not sent; None if it documents no default.
    :param choices: The valid words of a ``choice``.
    :param max_aspect_ratio: The widest valid ``ratio``; its inverse is the narrowest.
    :param required: Whether the API refuses a request without the field.
    :param encodings: How an image may be sent, the gateway's documented one first: ``"url"`` or ``"base64"`` (also as
        a data: URI).
    :param base64_only_if: Another field and its value with which an image may only be sent as base64.
    :param same_size_as: The field of another image, which must have the same width and height.
    :param overrides: What differs at a gateway: its name -> the values of these fields there.
    :param certain_maximum: Largest value on which all sources agree; a larger one gets a notice.
    :param rounded_to: The API is likely to round a value to a multiple of this; another value gets a notice.
    :param is_certain: Whether all sources agree that the model takes the field; if not, it gets a notice.
    """

    type: ParameterType
    minimum: float | None = None
    maximum: float | None = None
    multiple_of: int | None = None
    default: Any = None
    choices: tuple[str, ...] = ()
    max_aspect_ratio: str | None = None
    required: bool = False
    encodings: tuple[str, ...] = ()
    base64_only_if: tuple[str, str] | None = None
    same_size_as: str | None = None
    overrides: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    certain_maximum: float | None = None
    rounded_to: int | None = None
    is_certain: bool = True

    def for_request(self, gateway: str, fields: Mapping[str, Any]) -> Parameter:
        """Return the parameter as ``gateway`` documents it for a request with ``fields``."""
        parameter = replace(self, overrides={}, **self.overrides[gateway]) if gateway in self.overrides else self
        if self.base64_only_if is None:
            return parameter
        name, word = self.base64_only_if
        is_limited = str(fields.get(name)).strip().lower() == word
        return replace(parameter, encodings=(BASE64,)) if is_limited else parameter


@dataclass(frozen=True, slots=True)
class InputLimits:
    """The limits of each input image, by its displayed size.

    :param max_pixels: Largest width times height.
    :param min_side: Smallest width and height in pixels.

    Source: https://docs.bfl.ml
    """

    max_pixels: int = 20_000_000
    min_side: int = 256


@dataclass(frozen=True, slots=True)
class Model:
    """The parameters and limits of one model.

    :param parameters: Its request fields.
    :param typical_seconds: How many seconds a job typically takes.
    :param any_of: Fields of which at least one is required.
    :param max_pixels: Largest ``width`` times ``height``.
    :param resized_above: ``width`` times ``height`` above which the API is likely to resize the image.
    :param inputs: The limits of its input images.
    :param forbid_extra: Whether the API refuses unknown fields instead of ignoring them.
    :param alternatives: Fields of other models that this one does not take -> what to use instead.
    :param gateways: Where the model is available.
    :param deprecated_since: The ISO date since which its vendor calls it deprecated.
    :param source: The document that the entry follows, and when they were last compared.
    """

    parameters: Mapping[str, Parameter]
    typical_seconds: float
    any_of: tuple[str, ...] = ()
    max_pixels: int | None = None
    resized_above: int | None = None
    inputs: InputLimits = InputLimits()
    forbid_extra: bool = False
    alternatives: Mapping[str, str] = field(default_factory=dict)
    gateways: tuple[str, ...] = (COMETAPI, BFL)
    deprecated_since: str | None = None
    source: Source = OPENAPI

    def parameters_for(self, gateway: str, fields: Mapping[str, Any] | None = None) -> dict[str, Parameter]:
        """Return the request fields as ``gateway`` documents them for a request with ``fields``."""
        return {name: parameter.for_request(gateway, fields or {}) for name, parameter in self.parameters.items()}
