"""A whole Airflow on 127.0.0.1: api-server, scheduler (LocalExecutor), dag-processor and triggerer.

All of its files, HOME too, lie in one folder; each component is a process session of its own.
"""

from __future__ import annotations

import base64
import json
import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from packaging.version import Version

from tests.servers.process import ChildProcess, ServerError, free_port, stop_all, tail, wait_for
from tests.servers.rest import AirflowApi

COMPONENTS = ("api-server", "scheduler", "dag-processor", "triggerer")
# The api-server reads the logs of the tasks from the folder, so nobody need serve them.
COMMANDS = {
    "api-server": ["api-server"],
    "scheduler": ["scheduler", "--skip-serve-logs"],
    "dag-processor": ["dag-processor"],
    "triggerer": ["triggerer", "--skip-serve-logs"],
    # Not started with the others: for tests of what becomes of triggers when one of two stalls.
    "second-triggerer": ["triggerer", "--skip-serve-logs"],
}
# Component -> its name in the health report, which the api-server gives.
REPORTED = {
    "scheduler": "scheduler",
    "dag-processor": "dag_processor",
    "triggerer": "triggerer",
    "second-triggerer": "triggerer",
}
# Components that old versions of Airflow end by themselves: the scheduler where a task is cleared while it is being
# scheduled (StaleDataError); before 3.3, the triggerer where a connection is looked up in a thread
# (apache/airflow#64620).
KEPT = frozenset({"scheduler", *(["triggerer"] if Version(version("apache-airflow")) < Version("3.3") else [])})
# What the user of this machine has configured for himself must not reach the tests, nor a key by accident.
FOREIGN = ("AIRFLOW_", "AWS_", "COVERAGE_", "FLUX_", "XDG_")
LOCAL = "127.0.0.1,localhost"


class AirflowStack:
    """``with AirflowStack(folder, dags_folder, connections) as airflow: airflow.api.trigger(...)``."""

    def __init__(
        self,
        folder: Path,
        dags_folder: Path,
        connections: Mapping[str, Mapping[str, Any]] | None = None,
        *,
        env: Mapping[str, str] | None = None,
        parallelism: int = 4,
        users: Mapping[str, str] | None = None,
        path: str = "",
        more_components: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        """Prepare the stack.

        :param users: Name -> role ("" for none), one of them ``admin``; without, everybody is an admin.
        :param path: The path that Airflow is served from, such as ``/airflow``.
        :param more_components: Name -> command of processes that are started with the others.
        """
        self.folder = folder.resolve()
        port = free_port()
        self.url = f"http://127.0.0.1:{port}{path}"
        self.users = dict(users or {})
        self.passwords = {name: f"{name}-{secrets.token_hex(8)}" for name in self.users}
        self.api = self.api_of("admin") if users else AirflowApi(self.url)
        self.env = {
            **_clean_environment(),
            **_settings(self.folder, dags_folder.resolve(), self.url, port, parallelism, self.users),
            **{f"AIRFLOW_CONN_{name.upper()}": json.dumps(conn) for name, conn in (connections or {}).items()},
            **(env or {}),
        }
        own = {name: [sys.executable, "-m", "airflow", *command] for name, command in COMMANDS.items()}
        self.processes = {
            name: ChildProcess(command, log=self.log(name), env=self._env_of(name))
            for name, command in {**own, **(more_components or {})}.items()
        }
        self._components = (*COMPONENTS, *(more_components or ()))
        # The api-server starts longest, and asks the database nothing before a request. (FAB's auth manager does.)
        self._early = () if "AIRFLOW__CORE__AUTH_MANAGER" in self.env else ("api-server",)
        self._stopping = threading.Event()
        self._kept = set(KEPT)
        self._kept_lock = threading.Lock()
        self._watch = threading.Thread(target=self._keep_running, name="keep-running", daemon=True)

    def __enter__(self) -> AirflowStack:
        try:
            return self.start()
        except BaseException:
            self.stop()
            raise

    def __exit__(self, *_: object) -> None:
        self.stop()

    def api_of(self, user: str) -> AirflowApi:
        """The REST API as this user has it."""
        return AirflowApi(self.url, user, self.passwords[user])

    def start(self) -> AirflowStack:
        """Returns when the health report says that all four are healthy, and tasks can be served."""
        for name in ("home", "logs", "plugins"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        (self.folder / "passwords.json").write_text(json.dumps(self.passwords))
        started = datetime.now(UTC)
        for name in self._early:
            self.processes[name].start()
        self.run_command("db-migrate", ["-m", "airflow", "db", "migrate"])
        for name in self._components:  # side by side: most of the time goes into imports
            if name not in self._early:
                self.processes[name].start()
        self._wait_until_healthy(self._components, started)
        self._watch.start()
        return self

    def stop(self, grace: float = 3) -> None:
        """A triggerer may take ten seconds over its goodbyes.

        :param grace: Seconds after which what is still there is killed.
        """
        self._stopping.set()
        if self._watch.is_alive():
            self._watch.join()
        stop_all(self.processes.values(), grace=grace)

    def _keep_running(self) -> None:
        """Start a component that has ended by itself again, as a service manager does."""
        while not self._stopping.wait(0.5):
            with self._kept_lock:
                for name in self._kept:
                    if self.processes[name].returncode is not None:
                        self.processes[name].stop()  # what remains of it
                        self.processes[name].start()

    def start_component(self, name: str) -> None:
        """Returns when the new process has reported itself healthy (and not only the one before it).

        Of two triggerers, the report shows the one that was heard of last: hold the first to be sure of the second.
        """
        started = datetime.now(UTC)
        self.processes[name].start()
        with self._kept_lock:
            self._kept |= {name} & KEPT
        self._wait_until_healthy([name], started)

    def stop_component(self, name: str, signum: int = signal.SIGTERM) -> None:
        """SIGTERM: an orderly shutdown. SIGKILL: a crash, of its children too. It stays down until it is started."""
        with self._kept_lock:
            self._kept.discard(name)
        self.processes[name].stop(signum, grace=20)

    def signal_component(self, name: str, signum: int) -> None:
        """To all processes of the component: SIGSTOP holds it, SIGCONT lets it go on."""
        self.processes[name].send_signal(signum)

    def pids(self, name: str) -> list[int]:
        """The main process of the component first, then its children."""
        return self.processes[name].pids()

    def log(self, name: str) -> Path:
        """What the component itself printed; for the log of a task see ``api.task_log``."""
        return self.folder / "logs" / f"{name}.log"

    def health(self) -> dict[str, Any]:
        answer = self.api.session.get(f"{self.url}/api/v2/monitor/health", timeout=30)
        return answer.json() if answer.ok else {}

    def _execution_api_is_warm(self) -> bool:
        """Its first answer takes the api-server seconds, in which a first task would run into its timeout."""
        nobody: Any = {"Authorization": None}  # it would take our token for a task's
        return self.api.session.get(f"{self.url}/execution/health", headers=nobody, timeout=60).ok

    def _env_of(self, name: str) -> dict[str, str]:
        # Of a test run that measures its coverage, only the api-server runs code of ours that nothing else runs.
        measured = {key: value for key, value in os.environ.items() if key.startswith("COVERAGE_PROCESS")}
        return {**self.env, **measured} if name == "api-server" else self.env

    def run_command(self, name: str, command: Sequence[str]) -> None:
        """Run a Python module or script, with its arguments, to its end in Airflow's environment."""
        process = ChildProcess([sys.executable, *command], log=self.log(name), env=self.env)
        process.start()
        try:
            wait_for(lambda: process.returncode is not None, timeout=300, what=name)
            if process.returncode:
                raise ServerError(f"{name} failed\n{tail(process.log)}")
        finally:
            process.stop()

    def _wait_until_healthy(self, names: Iterable[str], started: datetime) -> None:
        names = list(names)
        reported = [REPORTED[name] for name in names if name in REPORTED]

        def healthy() -> bool:
            report = self.health()
            if not self._execution_api_is_warm() or report.get("metadatabase", {}).get("status") != "healthy":
                return False
            for name in reported:
                heartbeat = report[name][f"latest_{name}_heartbeat"]
                if report[name]["status"] != "healthy" or datetime.fromisoformat(heartbeat) < started:
                    return False
            return True

        processes = [self.processes[name] for name in names]
        wait_for(healthy, timeout=300, what=f"Airflow ({', '.join(names)})", processes=processes)


def _clean_environment() -> dict[str, str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
    for name in ("no_proxy", "NO_PROXY"):  # the components talk to each other without the machine's proxy
        env[name] = f"{env[name]},{LOCAL}" if env.get(name) else LOCAL
    return env


def _settings(
    folder: Path, dags_folder: Path, url: str, port: int, parallelism: int, users: Mapping[str, str]
) -> dict[str, str]:
    settings: dict[str, Any] = {
        "CORE__DAGS_FOLDER": dags_folder,
        "CORE__PLUGINS_FOLDER": folder / "plugins",
        "CORE__LOAD_EXAMPLES": False,
        "CORE__EXECUTOR": "LocalExecutor",
        "CORE__PARALLELISM": parallelism,
        "CORE__FERNET_KEY": base64.urlsafe_b64encode(secrets.token_bytes(32)).decode(),
        "CORE__SIMPLE_AUTH_MANAGER_ALL_ADMINS": not users,
        "CORE__SIMPLE_AUTH_MANAGER_USERS": ",".join(f"{name}:{role}" for name, role in users.items()),
        "CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE": folder / "passwords.json",
        "CORE__TEST_CONNECTION": "Enabled",
        "CORE__EXECUTION_API_SERVER_URL": f"{url}/execution/",
        "CORE__HOSTNAME_CALLABLE": "socket.gethostname",  # the default asks the network
        "DATABASE__CHECK_MIGRATIONS": False,  # just migrated; saves four imports of alembic
        "DATABASE__SQL_ALCHEMY_CONN": f"sqlite:///{folder / 'airflow.db'}",
        "API__HOST": "127.0.0.1",
        "API__PORT": port,
        "API__BASE_URL": url,
        "API__WORKERS": 1,
        "API__SECRET_KEY": secrets.token_hex(32),
        "API_AUTH__JWT_SECRET": secrets.token_hex(32),
        "LOGGING__BASE_LOG_FOLDER": folder / "logs",
        "LOGGING__DAG_PROCESSOR_CHILD_PROCESS_LOG_DIRECTORY": folder / "logs" / "dag_processor",
        "LOGGING__COLORED_CONSOLE_LOG": False,
        "LOGGING__WORKER_LOG_SERVER_PORT": free_port(),
        "LOGGING__TRIGGER_LOG_SERVER_PORT": free_port(),
        # A short task is not kept waiting by a scheduler asleep: a third less time for a run of a few tasks.
        "SCHEDULER__SCHEDULER_IDLE_SLEEP_TIME": 0.2,
        # A triggerer that stalls loses its triggers to another one within seconds.
        "TRIGGERER__JOB_HEARTBEAT_SEC": 1,
        "TRIGGERER__TRIGGERER_HEALTH_CHECK_THRESHOLD": 6,
        # A new or changed DAG file is seen within seconds. (One that is unchanged is parsed again every 30 seconds,
        # which is Airflow's default: more often, the parsing alone takes a third of a core.)
        "DAG_PROCESSOR__REFRESH_INTERVAL": 2,
        "DAG_PROCESSOR__BUNDLE_REFRESH_CHECK_INTERVAL": 1,
    }
    return {
        "AIRFLOW_HOME": str(folder),
        "HOME": str(folder / "home"),
        "PYTHONUNBUFFERED": "1",
        "OBJC_DISABLE_INITIALIZE_FORK_SAFETY": "YES",  # macOS: LocalExecutor forks
        **{f"AIRFLOW__{name}": str(value) for name, value in settings.items()},
    }
