"""How the two APIs differ: how a client authenticates, and what an error looks like."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Protocol

from fastapi.encoders import jsonable_encoder
from starlette.responses import JSONResponse, Response

ErrorDetail = dict[str, Any]
"""One entry of pydantic's list of errors: ``type``, ``loc``, ``msg``, ``input`` and, for some types, ``ctx``."""

_EDITED_IMAGES = ("image", "mask", "control_image", "preprocessed_image")


class Dialect(Protocol):
    """One API as the endpoints see it.

    :param base64_only: fields for input images that do not accept a URL.
    """

    name: str
    base64_only: tuple[str, ...]

    def required(self, model: str) -> tuple[str, ...]:
        """Return the fields that the API requires in addition to those of the model's schema."""

    def is_authorized(self, headers: Mapping[str, str], key: str) -> bool:
        """Whether the request carries the key in the header of this API."""

    def error(self, status: int, message: str | None = None) -> Response:
        """Return an error; without a message, with the usual one for the HTTP status."""

    def unauthorized(self, headers: Mapping[str, str]) -> Response:
        """Return the response to a request without the right key."""

    def unknown_model(self, model: str) -> Response:
        """Return the response to a submit for a model that the API does not offer."""

    def validation_error(self, errors: Sequence[ErrorDetail]) -> Response:
        """Return the response to a request that does not match the schema."""


class _CometAPI:
    name = "cometapi"
    base64_only: tuple[str, ...] = _EDITED_IMAGES
    defaults: ClassVar = {
        400: ("Invalid request", "invalid_request"),
        401: ("Invalid token", "invalid_api_key"),
        402: ("Insufficient quota for this request", "insufficient_user_quota"),
        403: ("Request not allowed", "access_denied"),
        404: ("Not found", "not_found"),
        422: ("Invalid request", "invalid_request"),
        429: ("Too many active tasks, please retry later", "rate_limit_exceeded"),
    }

    def required(self, model: str) -> tuple[str, ...]:
        # The page describes image generation; the tools are not on it.
        return () if model.startswith("flux-tools/") else ("prompt",)

    def is_authorized(self, headers: Mapping[str, str], key: str) -> bool:
        return headers.get("authorization") == f"Bearer {key}"

    def error(self, status: int, message: str | None = None, code: str | None = None) -> Response:
        default_message, default_code = self.defaults.get(status, ("Upstream service error", ""))
        # The real gateway has no field for the request's id and appends it to the message.
        error = {
            "message": f"{default_message if message is None else message} (request id: {uuid.uuid4().hex})",
            "type": "comet_api_error",
            "param": "",
            "code": default_code if code is None else code,
        }
        return JSONResponse({"error": error}, status)

    def unauthorized(self, headers: Mapping[str, str]) -> Response:
        return self.error(401)

    def unknown_model(self, model: str) -> Response:
        message = f"no available channel for model {model} under group default"
        return self.error(503, message, "model_not_found")

    def validation_error(self, errors: Sequence[ErrorDetail]) -> Response:
        messages = (f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in errors)
        return self.error(400, "; ".join(messages))


class _BFL:
    name = "bfl"
    base64_only: tuple[str, ...] = (*_EDITED_IMAGES, "image_prompt")
    defaults: ClassVar = {
        402: "Insufficient credits",
        403: "Not authenticated - Invalid Authentication",
        404: "Not Found",
        405: "Method Not Allowed",
        429: "Too many active tasks",
        500: "Internal Server Error",
        503: "Service Unavailable",
    }

    def required(self, model: str) -> tuple[str, ...]:
        return ()

    def is_authorized(self, headers: Mapping[str, str], key: str) -> bool:
        return headers.get("x-key") == key

    def error(self, status: int, message: str | None = None) -> Response:
        if status == 422 and message is None:
            error = ValueError("invalid request")
            entry = {"type": "value_error", "loc": ("body",), "msg": f"Value error, {error}", "input": None}
            return self.validation_error([{**entry, "ctx": {"error": error}}])
        detail = self.defaults.get(status, f"HTTP {status}") if message is None else message
        return JSONResponse({"detail": detail}, status)

    def unauthorized(self, headers: Mapping[str, str]) -> Response:
        return self.error(403, None if "x-key" in headers else "Not authenticated")

    def unknown_model(self, model: str) -> Response:
        return self.error(404)

    def validation_error(self, errors: Sequence[ErrorDetail]) -> Response:
        # As FastAPI's own handler does it, which fails on bytes that are not UTF-8.
        encoders = {bytes: lambda value: value.decode(errors="replace")}
        return JSONResponse({"detail": jsonable_encoder(errors, custom_encoder=encoders)}, 422)


class _Delivery(_BFL):
    """The blob store that serves the images: it has no key, and its errors are XML."""

    name = "delivery"
    codes: ClassVar = {403: "AuthenticationFailed", 404: "BlobNotFound", 416: "InvalidRange"}

    def error(self, status: int, message: str | None = None) -> Response:
        code = self.codes.get(status, "InternalError" if status >= 500 else "InvalidInput")
        text = message or "The server could not serve the request."
        body = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
        return Response(f'<?xml version="1.0" encoding="utf-8"?>{body}', status, media_type="application/xml")


COMETAPI: Dialect = _CometAPI()
BFL: Dialect = _BFL()
DELIVERY: Dialect = _Delivery()
