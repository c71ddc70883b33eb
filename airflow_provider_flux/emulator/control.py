"""The control API under ``/emulator``: read and change the account, and add faults. It needs no key."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from fastapi.exceptions import RequestValidationError
from pydantic import ValidationError

from airflow_provider_flux.emulator.account import Account
from airflow_provider_flux.emulator.fault_registry import FaultRegistry
from airflow_provider_flux.emulator.faults import Fault
from airflow_provider_flux.emulator.settings import Settings


def control_routes(account: Account, faults: FaultRegistry) -> APIRouter:
    """Return the routes of the control API."""
    router = APIRouter(prefix="/emulator")

    @router.get("/stats")
    async def read_stats() -> dict[str, Any]:
        return account.stats()

    @router.post("/reset")
    async def reset() -> dict[str, Any]:
        faults.clear()
        account.reset()
        return account.stats()

    @router.get("/settings")
    async def read_settings() -> dict[str, Any]:
        account.bill_finished_jobs()
        return account.settings.model_dump()

    @router.patch("/settings")
    async def change_settings(body: dict[str, Any]) -> dict[str, Any]:
        account.bill_finished_jobs()
        try:
            account.settings = Settings.model_validate(account.settings.model_dump() | body)
        except ValidationError as error:
            errors = error.errors(include_url=False, include_context=False)
            raise RequestValidationError([{**entry, "loc": ("body", *entry["loc"])} for entry in errors]) from None
        return account.settings.model_dump()

    @router.get("/faults")
    async def list_faults() -> list[dict[str, Any]]:
        return faults.to_list()

    @router.post("/faults")
    async def add_fault(fault: Fault) -> dict[str, str]:
        return {"id": faults.add(fault)}

    @router.delete("/faults")
    async def delete_faults() -> dict[str, int]:
        return {"deleted": faults.clear()}

    return router
