"""Airflow as users run it: PostgreSQL, Redis, CeleryExecutor with two workers, two triggerers, FAB's roles, a path.

XComs and logs are in S3, connections in a secrets backend; the second worker has no home, and writes nowhere but to its
log folder.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from airflow_provider_flux.emulator import FluxEmulator
from tests.servers import postgres, redis
from tests.servers.airflow import AirflowStack
from tests.servers.postgres import PostgreSQL
from tests.servers.redis import Redis
from tests.servers.seaweed import SeaweedFS

ROOT = Path(__file__).parents[2]
MISSING = redis.MISSING if postgres.binaries() else "PostgreSQL is not installed: apt-get install postgresql"
USERS = {"admin": "Admin", "viewer": "Viewer", "op": "Op", "gardener": "Gardener", "public": "Public"}
"""Users of FAB's auth manager, with their roles; ``Gardener`` may read one DAG only."""
VISIBILITY_TIMEOUT = 30
"""Seconds after which Redis delivers a task again that no worker has finished."""
WORKER = ["celery", "worker", "--skip-serve-logs", "--without-gossip", "--without-mingle"]


@dataclass
class Deployment:
    """The running parts."""

    airflow: AirflowStack
    flux: FluxEmulator
    s3: SeaweedFS
    database: PostgreSQL
    broker: Redis


@contextmanager
def running_deployment(folder: Path) -> Iterator[Deployment]:
    """Run everything in ``folder``, with all example DAGs and the DAGs of these tests."""
    dags = shutil.copytree(ROOT / "dags_examples", folder / "dags", ignore=shutil.ignore_patterns("__pycache__"))
    for file in (Path(__file__).parent / "dags").glob("*.py"):
        shutil.copy(file, dags)
    with (
        PostgreSQL() as database,
        Redis(folder / "redis") as broker,
        SeaweedFS(folder / "seaweed") as s3,
        FluxEmulator(key="the-key-of-the-account", duration=1) as flux,
    ):
        connections = {
            "flux_default": flux.connection(timeout=15),
            "flux_short_timeout": flux.connection(timeout=5),
            "aws_default": s3.connection(),
        }
        secrets = folder / "connections.json"
        secrets.write_text(json.dumps(connections))
        home = folder / "airflow"
        (home / "logs").mkdir(parents=True)
        read_only = _read_only(home / "logs") if read_only_is_possible(home / "logs") else []
        stack = AirflowStack(
            home,
            dags,
            env=_settings(database, broker, secrets),
            users=USERS,
            path="/airflow",
            more_components={
                "second-triggerer": [sys.executable, "-m", "airflow", "triggerer", "--skip-serve-logs"],
                "worker": _worker("first", home),
                "second-worker": [*read_only, *_worker("second", home)],
            },
        )
        with stack as airflow:
            roles = Path(__file__).with_name("roles.py")
            airflow.run_command("roles", [str(roles), json.dumps(USERS), json.dumps(airflow.passwords)])
            yield Deployment(airflow, flux, s3, database, broker)


def _settings(database: PostgreSQL, broker: Redis, secrets: Path) -> dict[str, str]:
    settings = {
        "CORE__AUTH_MANAGER": "airflow.providers.fab.auth_manager.fab_auth_manager.FabAuthManager",
        "CORE__EXECUTOR": "CeleryExecutor",
        "CORE__PARALLELISM": "32",
        "CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "COMMON_IO__XCOM_OBJECTSTORAGE_PATH": "s3://aws_default@flux/xcom",
        "COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
        "API__WORKERS": "2",
        "CELERY__BROKER_URL": broker.url,
        "CELERY__RESULT_BACKEND": f"db+{database.url}",
        "CELERY_BROKER_TRANSPORT_OPTIONS__VISIBILITY_TIMEOUT": str(VISIBILITY_TIMEOUT),
        "DATABASE__SQL_ALCHEMY_CONN": database.url,
        "LOGGING__REMOTE_LOGGING": "True",
        "LOGGING__REMOTE_BASE_LOG_FOLDER": "s3://flux/logs",
        "LOGGING__REMOTE_LOG_CONN_ID": "aws_default",
        "SECRETS__BACKEND": "airflow.secrets.local_filesystem.LocalFilesystemBackend",
        "SECRETS__BACKEND_KWARGS": json.dumps({"connections_file_path": str(secrets)}),
        # A task whose worker was killed is noticed within seconds.
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT": "20",
        "SCHEDULER__TASK_INSTANCE_HEARTBEAT_TIMEOUT_DETECTION_INTERVAL": "3",
        "WORKERS__MIN_HEARTBEAT_INTERVAL": "1",
    }
    return {"PYTHONPATH": str(ROOT), **{f"AIRFLOW__{name}": value for name, value in settings.items()}}


def _worker(name: str, home: Path) -> list[str]:
    pid_file = home / "logs" / f"{name}.pid"
    options = ["--concurrency", "8", "--celery-hostname", f"{name}@flux", "--pid", str(pid_file)]
    return [sys.executable, "-m", "airflow", *WORKER, *options]


def _read_only(writable: Path) -> list[str]:
    """Return a command that runs another one without a home, where only the folder ``writable`` can be written."""
    script = (
        'mount --bind "$1" "$1" && mount -o remount,bind,ro / && shift && exec env HOME=/nonexistent TMPDIR="$0" "$@"'
    )
    rights = [] if os.getuid() == 0 else ["--map-root-user"]
    return ["unshare", "--mount", *rights, "sh", "-c", script, str(writable), str(writable)]


def read_only_is_possible(folder: Path) -> bool:
    """Return whether this machine allows a process a read-only file system."""
    command = [*_read_only(folder), "sh", "-c", "! touch /read-only-test"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
