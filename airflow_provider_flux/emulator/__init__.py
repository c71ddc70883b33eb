"""A FLUX API on localhost that accepts and rejects the same requests as the real one.

It serves CometAPI's dialect (``/flux/v1/...``) and Black Forest Labs' own (``/v1/...``) at the same time. Start it with
``python -m airflow_provider_flux.emulator`` or, from Python, with `FluxEmulator`. It needs the extra
``airflow-provider-flux[emulator]``; importing this package alone does not.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_flux.emulator.app import create_app
    from airflow_provider_flux.emulator.server import FluxEmulator
    from airflow_provider_flux.emulator.settings import Settings

__all__ = ["FluxEmulator", "Settings", "create_app"]

_MODULES = {"FluxEmulator": "server", "Settings": "settings", "create_app": "app"}


def __getattr__(name: str) -> Any:
    # Imported on first use, so that Airflow's plugin and provider discovery never loads FastAPI.
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
