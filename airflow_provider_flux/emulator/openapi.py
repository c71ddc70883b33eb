"""The OpenAPI document of BFL's dialect, generated from the emulator's schemas; it can be compared with BFL's own."""

from __future__ import annotations

from enum import Enum
from functools import cache
from typing import Any

from fastapi import Depends, FastAPI
from fastapi.security import APIKeyHeader
from pydantic import BaseModel

from airflow_provider_flux.emulator.models import MODELS, offered_by
from airflow_provider_flux.emulator.schemas import request_schema


class AsyncResponse(BaseModel):
    id: str
    polling_url: str
    cost: float | None = None
    input_mp: float | None = None
    output_mp: float | None = None


class AsyncWebhookResponse(BaseModel):
    id: str
    status: str
    webhook_url: str
    cost: float | None = None
    input_mp: float | None = None
    output_mp: float | None = None


class StatusResponse(Enum):
    not_found = "Task not found"
    pending = "Pending"
    request_moderated = "Request Moderated"
    content_moderated = "Content Moderated"
    ready = "Ready"
    error = "Error"


class ResultResponse(BaseModel):
    id: str
    status: StatusResponse
    result: Any | None = None
    progress: float | None = None
    details: dict[str, Any] | None = None
    preview: dict[str, Any] | None = None


class SettledCostResultResponse(ResultResponse):
    cost: float


class CreditsResponse(BaseModel):
    credits: float


@cache
def openapi_document() -> dict[str, Any]:
    """Return the document as JSON data. A model's schema has the model's name."""
    app = FastAPI(title="BFL API", version="0.0.1", description="The FLUX API emulator in BFL's dialect.")
    key = [Depends(APIKeyHeader(name="x-key"))]

    async def credits() -> Any: ...

    async def get_result(id: str) -> Any: ...

    # Only the document of this application is used: it never serves a request.
    app.add_api_route("/v1/credits", credits, response_model=CreditsResponse, dependencies=key)
    app.add_api_route(
        "/v1/get_result", get_result, response_model=SettledCostResultResponse | ResultResponse, dependencies=key
    )
    for model in MODELS:
        if "bfl" in offered_by(model):
            app.add_api_route(
                f"/v1/{model}",
                _submit(model),
                methods=["POST"],
                response_model=AsyncResponse | AsyncWebhookResponse,
                dependencies=key,
            )
    return app.openapi()


def _submit(model: str) -> Any:
    async def submit(body: Any) -> Any: ...

    # The schema is created at run time, so the function's source cannot name it.
    submit.__annotations__ |= {"body": request_schema(model)}
    return submit
