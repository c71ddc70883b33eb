"""Reading a request body. FastAPI itself parses and validates it, so malformed bodies get its own responses."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any

from fastapi import Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from airflow_provider_flux.emulator.schemas import request_schema


async def read_body(request: Request, model: str, required: tuple[str, ...]) -> dict[str, Any]:
    """Return the validated body of a submit: all fields that were sent, with values of the schema's types.

    :param model: a key of `MODELS`.
    :param required: fields that the dialect requires in addition to those of the model.
    :raises RequestValidationError: the body does not match the schema (HTTP 422 by default).
    :raises starlette.exceptions.HTTPException: the body cannot be decoded (HTTP 400).
    """
    try:
        sent = await request.json()
    except (ValueError, RecursionError):
        sent = None  # FastAPI's handler meets the same error, and reports it.
    await run_in_threadpool(_check_encodable, sent)
    await _handler(model, required)(request)
    return {**sent, **request.state.body.model_dump(mode="json", exclude_unset=True)}


@cache
def _handler(model: str, required: tuple[str, ...]) -> Callable[[Request], Awaitable[Response]]:
    """Return FastAPI's handler of a route whose body has the schema of `model`."""

    async def keep(request: Request, body: Any) -> Response:
        request.state.body = body
        return Response()

    # The schema is created at run time, so the function's source cannot name it.
    keep.__annotations__ |= {"request": Request, "body": request_schema(model, required), "return": Response}
    return APIRoute("/", keep, methods=["POST"], response_model=None).get_route_handler()


def _check_encodable(body: Any) -> None:
    # Python reads NaN, Infinity and half a surrogate pair, but cannot send them back as JSON.
    try:
        json.dumps(body, ensure_ascii=False, allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        context = {"error": str(error)[:200]}
        entry = {"type": "json_invalid", "loc": ("body", 0), "msg": "JSON decode error", "input": {}, "ctx": context}
        raise RequestValidationError([entry]) from None
