"""One running Airflow for all end-to-end tests, with a FLUX emulator and an S3 server beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_flux.emulator import FluxEmulator
from tests.servers.airflow import AirflowStack
from tests.servers.seaweed import SeaweedFS

EXAMPLES = Path(__file__).parents[2] / "dags_examples"


@dataclass
class Stack:
    airflow: AirflowStack
    flux: FluxEmulator
    s3: SeaweedFS


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory, _seaweed: SeaweedFS) -> Iterator[Stack]:
    folder = tmp_path_factory.mktemp("stack")
    dags = shutil.copytree(EXAMPLES, folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (Path(__file__).parent / "dags").glob("*.py"):
        shutil.copy(file, dags)
    with FluxEmulator(key="the-key-of-the-account", duration=(6, 8)) as flux:
        connections = {"flux_default": flux.connection(), "aws_default": _seaweed.connection()}
        env = {"AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG"}
        with AirflowStack(folder / "airflow", dags, connections, env=env, parallelism=6) as airflow:
            yield Stack(airflow, flux, _seaweed)


@pytest.fixture
def stack(_running: Stack) -> Stack:
    """The running Airflow, with an emulator that has forgotten everything."""
    _running.flux.reset()
    return _running
