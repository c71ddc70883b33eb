"""How the two APIs differ: who may come in, and what a refusal looks like."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol

from starlette.responses import JSONResponse, Response

from airflow_provider_flux.emulator.validation import Problem

_EDITED = ("image", "mask", "control_image", "preprocessed_image")


class Dialect(Protocol):
    """What the endpoints need to know of an API. `required` are fields it demands of every model.

    Input images named in `base64_only` may not be URLs.
    """

    name: str
    required: tuple[str, ...]
    base64_only: tuple[str, ...]

    def knows_key(self, headers: Mapping[str, str], key: str) -> bool:
        """Whether the request carries the key in the way this API wants it."""

    def error(self, status: int, message: str | None = None) -> Response:
        """An error answer; without a message, with one that is usual for the HTTP status."""

    def unauthorized(self) -> Response:
        """The answer to a request without the right key."""

    def unknown_model(self, model: str) -> Response:
        """The answer to a submit for a model that is not sold."""

    def invalid(self, problems: list[Problem]) -> Response:
        """The answer to a request that breaks the schema."""


class _CometAPI:
    name = "cometapi"
    required: tuple[str, ...] = ("prompt",)
    base64_only: tuple[str, ...] = _EDITED
    usual: ClassVar = {
        400: ("Invalid request", "invalid_request"),
        401: ("Invalid token", "invalid_api_key"),
        402: ("Insufficient quota for this request", "insufficient_user_quota"),
        403: ("Request not allowed", "access_denied"),
        404: ("Not found", "not_found"),
        422: ("Invalid request", "invalid_request"),
        429: ("Too many active tasks, please retry later", "rate_limit_exceeded"),
    }

    def knows_key(self, headers: Mapping[str, str], key: str) -> bool:
        return headers.get("authorization") == f"Bearer {key}"

    def error(self, status: int, message: str | None = None, code: str | None = None) -> Response:
        text, usual_code = self.usual.get(status, ("Upstream service error", ""))
        # The real gateway hides the request's id in the text; there is no field for it.
        error = {
            "message": f"{text if message is None else message} (request id: {uuid.uuid4().hex})",
            "type": "comet_api_error",
            "param": "",
            "code": usual_code if code is None else code,
        }
        return JSONResponse({"error": error}, status)

    def unauthorized(self) -> Response:
        return self.error(401)

    def unknown_model(self, model: str) -> Response:
        message = f"no available channel for model {model} under group default"
        return self.error(503, message, "model_not_found")

    def invalid(self, problems: list[Problem]) -> Response:
        told = (f"{'.'.join(map(str, entry['loc']))}: {entry['msg']}" for entry in problems)
        return self.error(400, "; ".join(told))


class _BFL:
    name = "bfl"
    required: tuple[str, ...] = ()
    base64_only: tuple[str, ...] = (*_EDITED, "image_prompt")
    usual: ClassVar = {
        402: "Insufficient credits",
        403: "Not authenticated - Invalid Authentication",
        404: "Not Found",
        429: "Too many active tasks",
        500: "Internal Server Error",
        503: "Service Unavailable",
    }

    def knows_key(self, headers: Mapping[str, str], key: str) -> bool:
        return headers.get("x-key") == key

    def error(self, status: int, message: str | None = None) -> Response:
        detail: Any = self.usual.get(status, f"HTTP {status}") if message is None else message
        if status == 422 and message is None:
            detail = [{"loc": ["body"], "msg": "Value error, invalid request", "type": "value_error"}]
        return JSONResponse({"detail": detail}, status)

    def unauthorized(self) -> Response:
        return self.error(403)

    def unknown_model(self, model: str) -> Response:
        return self.error(404)

    def invalid(self, problems: list[Problem]) -> Response:
        return JSONResponse({"detail": problems}, 422)


class _Delivery(_BFL):
    """The blob store that the images lie in: no key, errors in XML."""

    name = "delivery"
    codes: ClassVar = {403: "AuthenticationFailed", 404: "BlobNotFound"}

    def error(self, status: int, message: str | None = None) -> Response:
        code = self.codes.get(status, "InternalError" if status >= 500 else "InvalidInput")
        text = message or "The server could not serve the request."
        body = f"<Error><Code>{code}</Code><Message>{text}</Message></Error>"
        return Response(f'<?xml version="1.0" encoding="utf-8"?>{body}', status, media_type="application/xml")


COMETAPI: Dialect = _CometAPI()
BFL: Dialect = _BFL()
DELIVERY: Dialect = _Delivery()
