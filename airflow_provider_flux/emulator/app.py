"""The emulator as an ASGI application: both FLUX APIs, the delivery store and the control API."""

from __future__ import annotations

from fastapi import FastAPI, Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.types import ASGIApp

from airflow_provider_flux.emulator.control import control_routes
from airflow_provider_flux.emulator.delivery import Delivery, Links, delivery_routes
from airflow_provider_flux.emulator.endpoints import FluxAPI, flux_routes
from airflow_provider_flux.emulator.faultbook import FaultBook
from airflow_provider_flux.emulator.jobs import Settings, Store
from airflow_provider_flux.emulator.transport import KeepTransport

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
_JSON_SIDE = ("/v1/", "/clusters/", "/delivery/", "/emulator/")
_HOME_PAGE = "<!doctype html><html><head><title>CometAPI</title></head><body></body></html>"


def create_app(settings: Settings | None = None, key: str = "emulator-key") -> ASGIApp:
    """The application, with an account of its own.

    :param settings: how the account behaves at the start and after a reset; default `Settings()`.
    :param key: the API key that clients must send.
    """
    store, faults, links = Store(settings or Settings()), FaultBook(), Links()
    app = FastAPI(title="FLUX API emulator", openapi_url=None)
    app.include_router(control_routes(store, faults))
    app.include_router(delivery_routes(Delivery(store, faults, links)))
    app.include_router(flux_routes(FluxAPI(key, store, faults, links)))

    @app.api_route("/{path:path}", methods=_METHODS)
    async def anything_else(request: Request) -> Response:
        if request.url.path.startswith(_JSON_SIDE):
            return JSONResponse({"detail": "Not Found"}, 404)
        # The real gateway answers a mistyped path with its web page and a cheerful 200.
        return HTMLResponse(_HOME_PAGE)

    return KeepTransport(app)
