"""One running Airflow for all end-to-end tests, with a FLUX emulator and an S3 server beside it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_flux.emulator import FluxEmulator
from tests.e2e.gallery import Gallery
from tests.servers.airflow import AirflowStack
from tests.servers.seaweed import SeaweedFS

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "dags_examples"


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
        connections = {"flux_default": flux.connection(timeout=15), "aws_default": _seaweed.connection()}
        env = {
            "AIRFLOW__LOGGING__LOGGING_LEVEL": "DEBUG",
            "AIRFLOW__CORE__AUTH_MANAGER": "tests.e2e.auth.OneDagAuthManager",
            "PYTHONPATH": str(ROOT),
        }
        users = {"admin": "admin", "viewer": "viewer", "gardener": "viewer", "nobody": ""}
        with AirflowStack(folder / "airflow", dags, connections, env=env, users=users, parallelism=6) as airflow:
            yield Stack(airflow, flux, _seaweed)


@pytest.fixture
def stack(_running: Stack) -> Stack:
    """The running Airflow, with an emulator that has forgotten everything."""
    _running.flux.reset()
    return _running


@pytest.fixture(scope="session")
def _finished(_running: Stack) -> Gallery:
    _running.flux.reset()
    _running.flux.settings(duration=0.5)
    api = _running.airflow.api
    api.wait_for_dag("e2e_gallery")
    run_id = api.trigger("e2e_gallery")
    assert api.wait_for_run("e2e_gallery", run_id) == "failed"  # for its moderated task
    return Gallery(_running, run_id)


@pytest.fixture
def gallery(_finished: Gallery) -> Gallery:
    """A finished run of ``e2e_gallery``, without what another test let a task of it tell."""
    _finished.stack.flux.clear_faults()
    _finished.tell("no image")
    return _finished
