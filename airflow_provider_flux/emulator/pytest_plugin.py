"""Pytest fixtures for DAG authors: a local FLUX API that bills nothing.

``flux_emulator`` is a running emulator without state from other tests; ``flux_connection`` also sets the Airflow
connection ``flux_default`` to it.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from airflow_provider_flux.emulator.server import FluxEmulator


@pytest.fixture(scope="session")
def _flux_emulator_server() -> Iterator[FluxEmulator]:
    from airflow_provider_flux.emulator.server import FluxEmulator
    from airflow_provider_flux.emulator.serving import require_extra

    try:
        require_extra()
    except ModuleNotFoundError as error:
        pytest.fail(str(error), pytrace=False)
    with FluxEmulator() as emulator:
        yield emulator


@pytest.fixture
def flux_emulator(_flux_emulator_server: FluxEmulator) -> FluxEmulator:
    """A running `FluxEmulator` without jobs or faults, and with its initial settings."""
    _flux_emulator_server.reset()
    return _flux_emulator_server


@pytest.fixture
def flux_connection(flux_emulator: FluxEmulator, monkeypatch: pytest.MonkeyPatch) -> FluxEmulator:
    """`flux_emulator`, to which the Airflow connection ``flux_default`` points."""
    monkeypatch.setenv("AIRFLOW_CONN_FLUX_DEFAULT", json.dumps(flux_emulator.connection()))
    return flux_emulator
