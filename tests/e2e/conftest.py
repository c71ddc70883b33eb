"""A running Airflow with a FLUX emulator and an S3 server beside it: one for all end-to-end tests of a process."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from airflow_provider_flux.emulator import FluxEmulator
from tests.conftest import EXAMPLES, NOT_HERE
from tests.e2e.gallery import Gallery
from tests.servers.airflow import AirflowStack
from tests.servers.seaweed import SeaweedFS

ROOT = Path(__file__).parents[2]
USERS = {"admin": "admin", "viewer": "viewer", "gardener": "viewer", "nobody": ""}


@dataclass
class Stack:
    airflow: AirflowStack
    flux: FluxEmulator
    s3: SeaweedFS


@contextmanager
def running_stack(folder: Path, s3: SeaweedFS, **settings: str) -> Iterator[Stack]:
    """Run an Airflow with all example DAGs and all DAGs of these tests.

    :param settings: Airflow's own, by the names of their environment variables.
    """
    dags = shutil.copytree(EXAMPLES, folder / "dags", ignore=NOT_HERE)
    for file in (Path(__file__).parent / "dags").glob("*.py"):
        shutil.copy(file, dags)
    env = {"AIRFLOW__CORE__AUTH_MANAGER": "tests.e2e.auth.OneDagAuthManager", "PYTHONPATH": str(ROOT), **settings}
    with FluxEmulator(key="the-key-of-the-account", duration=1) as flux:
        connections = {
            "flux_default": flux.connection(timeout=15),
            # How long the claim of a killed worker stays valid follows from the timeout.
            "flux_short_timeout": flux.connection(timeout=5),
            "aws_default": s3.connection(),
        }
        with AirflowStack(folder / "airflow", dags, connections, env=env, users=USERS, parallelism=6) as airflow:
            yield Stack(airflow, flux, s3)


@pytest.fixture(scope="session")
def _running(tmp_path_factory: pytest.TempPathFactory, _seaweed: SeaweedFS) -> Iterator[Stack]:
    # A deferral takes one second longer than this interval (Airflow's default is 5 seconds).
    settings = {"AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL": "1"}
    with running_stack(tmp_path_factory.mktemp("stack"), _seaweed, **settings) as stack:
        yield stack


@pytest.fixture
def stack(_running: Stack) -> Stack:
    """The running Airflow, with an emulator without jobs and faults. A job takes one second."""
    _running.flux.reset()
    return _running


@pytest.fixture(scope="session")
def _finished(_running: Stack) -> Gallery:
    _running.flux.reset()
    _running.flux.settings(duration=0)
    api = _running.airflow.api
    api.wait_for_dag("e2e_gallery")
    run_id = api.trigger("e2e_gallery")
    assert api.wait_for_run("e2e_gallery", run_id) == "failed"  # for its moderated task
    return Gallery(_running, run_id)


@pytest.fixture
def gallery(_finished: Gallery) -> Gallery:
    """A finished run of ``e2e_gallery``, without the result that another test gave one of its tasks."""
    _finished.stack.flux.clear_faults()
    _finished.set_result("no image")
    return _finished
