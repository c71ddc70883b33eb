"""Pytest fixtures for DAG authors: a FLUX API on localhost instead of one that costs money.

``flux_emulator`` is the running emulator, fresh for each test; ``flux_connection`` also makes it the
Airflow connection ``flux_default``.
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
    """A running `FluxEmulator` without jobs, faults or changed settings."""
    _flux_emulator_server.reset()
    return _flux_emulator_server


@pytest.fixture
def flux_connection(flux_emulator: FluxEmulator, monkeypatch: pytest.MonkeyPatch) -> FluxEmulator:
    """`flux_emulator`, with the Airflow connection `flux_default` leading to it."""
    monkeypatch.setenv("AIRFLOW_CONN_FLUX_DEFAULT", json.dumps(flux_emulator.connection()))
    return flux_emulator
