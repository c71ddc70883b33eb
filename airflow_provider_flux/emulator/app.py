"""The emulator as an ASGI application: both FLUX APIs, the delivery host and the control API."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp

from airflow_provider_flux.emulator.account import Account
from airflow_provider_flux.emulator.control import control_routes
from airflow_provider_flux.emulator.delivery import DeliveryHost, delivery_routes
from airflow_provider_flux.emulator.endpoints import FluxAPI, flux_routes
from airflow_provider_flux.emulator.fault_registry import FaultRegistry
from airflow_provider_flux.emulator.links import LinkSigner
from airflow_provider_flux.emulator.openapi import openapi_document
from airflow_provider_flux.emulator.settings import Settings
from airflow_provider_flux.emulator.transport import TransportMiddleware

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
_JSON_PATHS = ("/v1/", "/clusters/", "/delivery/", "/emulator/")
_HOME_PAGE = "<!doctype html><html><head><title>CometAPI</title></head><body></body></html>"


def create_app(settings: Settings | None = None, key: str = "emulator-key") -> ASGIApp:
    """Return the application with an account of its own.

    :param settings: the account's settings at the start and after a reset; default `Settings()`.
    :param key: the API key that clients must send.
    """
    account, faults, links = Account(settings or Settings()), FaultRegistry(), LinkSigner()
    app = FastAPI(title="FLUX API emulator", openapi_url=None)
    app.include_router(control_routes(account, faults))
    app.include_router(delivery_routes(DeliveryHost(account, faults, links)))
    app.include_router(flux_routes(FluxAPI(key, account, faults, links)))

    @app.get("/openapi.json")
    async def openapi() -> dict[str, Any]:
        return openapi_document()

    @app.api_route("/{path:path}", methods=_METHODS)
    async def unknown_path(request: Request) -> Response:
        if request.url.path.startswith(_JSON_PATHS):
            return JSONResponse({"detail": "Not Found"}, 404)
        # The real gateway answers a mistyped path with its web page and HTTP 200.
        return HTMLResponse(_HOME_PAGE)

    return TransportMiddleware(app)
