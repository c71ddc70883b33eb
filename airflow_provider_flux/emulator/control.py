"""The control API under ``/emulator``: look at the account, change it, order faults. It needs no key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from airflow_provider_flux.emulator.faultbook import FaultBook
from airflow_provider_flux.emulator.faults import Fault
from airflow_provider_flux.emulator.jobs import Settings, Store


def control_routes(store: Store, faults: FaultBook) -> APIRouter:
    """The routes of the control API."""
    router = APIRouter(prefix="/emulator")

    @router.get("/stats")
    async def stats() -> dict[str, Any]:
        return store.stats()

    @router.post("/reset")
    async def reset() -> dict[str, Any]:
        faults.standing.clear()
        store.reset()
        return store.stats()

    @router.get("/settings")
    async def settings() -> dict[str, Any]:
        store.active()  # charges what has become ready
        return store.settings.model_dump()

    @router.patch("/settings")
    async def change(body: dict[str, Any]) -> dict[str, Any]:
        store.active()
        try:
            store.settings = Settings.model_validate(store.settings.model_dump() | body)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_context=False)
            located = [{**entry, "loc": ("body", *entry["loc"])} for entry in wrong]
            raise RequestValidationError(located) from None
        return store.settings.model_dump()

    @router.get("/faults")
    async def listing() -> list[dict[str, Any]]:
        return faults.listing()

    @router.post("/faults")
    async def order(fault: Fault) -> dict[str, str]:
        return {"id": faults.add(fault)}

    @router.delete("/faults")
    async def forget() -> dict[str, int]:
        count = len(faults.standing)
        faults.standing.clear()
        return {"deleted": count}

    return router
