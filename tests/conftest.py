"""What all tests share: an Airflow home of their own, a FLUX emulator, an S3 server."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Airflow reads its configuration when it is first imported.
AIRFLOW_HOME = Path(tempfile.mkdtemp(prefix="flux-tests-"))
EXAMPLES = Path(__file__).parent.parent / "dags_examples"
# It comes with apache-airflow-providers-common-ai, no version of which fits the lowest supported Airflow; to look for
# the provider itself would import Airflow.
HAS_COMMON_AI = importlib.util.find_spec("pydantic_ai") is not None
NOT_HERE = shutil.ignore_patterns("__pycache__", *([] if HAS_COMMON_AI else ["llm_prompt.py", "vision_check.py"]))
DAGS_FOLDER = shutil.copytree(EXAMPLES, AIRFLOW_HOME / "dags", ignore=NOT_HERE)
os.environ.update(
    AIRFLOW_HOME=str(AIRFLOW_HOME),
    AIRFLOW__CORE__DAGS_FOLDER=str(DAGS_FOLDER),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{AIRFLOW_HOME}/airflow.db",
    # No scheduler here that could mistake the end of a deferring process for that of the resumed one.
    AIRFLOW__WORKERS__MIN_HEARTBEAT_INTERVAL="-1",
    NO_PROXY="127.0.0.1,localhost",
)

import hypothesis  # noqa: E402 - Airflow's configuration comes first
import pytest  # noqa: E402 - Airflow's configuration comes first

from airflow_provider_flux.emulator import FluxEmulator  # noqa: E402 - Airflow's configuration comes first
from tests.servers.seaweed import SeaweedFS  # noqa: E402 - Airflow's configuration comes first

# No deadline: how long an example takes tells of the machine and what else it does.
hypothesis.settings.register_profile("flux", deadline=None)
hypothesis.settings.load_profile("flux")


def pytest_configure() -> None:
    """Stop all servers also when the tests are killed; pytest takes a SystemExit for a failed test."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda received, _frame: pytest.exit(f"signal {received}", 128 + received))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Let one process run all tests of a running Airflow, since they share one, and another process all the rest."""
    from xdist.scheduler import LoadScopeScheduling

    class OneAirflow(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return "airflow" if nodeid.startswith("tests/e2e/") else nodeid

    return OneAirflow(config, log)


@pytest.fixture(scope="session", autouse=True)
def _remove_airflow_home() -> Iterator[None]:
    yield
    shutil.rmtree(AIRFLOW_HOME, ignore_errors=True)


both_gateways = pytest.mark.parametrize("flux", ["cometapi", "bfl"], indirect=True)
"""Runs a test that takes ``flux`` once at each gateway: for what they do differently, which is the path, the key's
header, the polling URL, the encoding of input images, and the body of an error."""


@pytest.fixture
def flux(request: pytest.FixtureRequest, flux_emulator: FluxEmulator, monkeypatch: pytest.MonkeyPatch) -> FluxEmulator:
    """Connect flux_default to the emulator: to its CometAPI gateway, or to each in turn with ``both_gateways``."""
    connection = flux_emulator.connection(gateway=getattr(request, "param", "cometapi"))
    monkeypatch.setenv("AIRFLOW_CONN_FLUX_DEFAULT", json.dumps(connection))
    return flux_emulator


@pytest.fixture(scope="session")
def _seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with SeaweedFS(tmp_path_factory.mktemp("seaweed")) as server:
        yield server


@pytest.fixture
def s3(_seaweed: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> SeaweedFS:
    """Connect aws_default to a real S3 server; empty the bucket first."""
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(_seaweed.connection()))
    client = _seaweed.client()
    for item in client.list_objects_v2(Bucket=_seaweed.bucket).get("Contents", []):
        client.delete_object(Bucket=_seaweed.bucket, Key=item["Key"])
    return _seaweed


@pytest.fixture
def unused_port() -> int:
    """A port of 127.0.0.1 on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
