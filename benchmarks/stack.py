"""A running Airflow with the benchmarks' DAGs, an emulator and an S3 server; and what a run of a DAG takes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from airflow_provider_flux.emulator import FluxEmulator
from tests.servers.airflow import AirflowStack
from tests.servers.process import exit_on_signals, wait_for
from tests.servers.rest import RUN_ENDED
from tests.servers.seaweed import SeaweedFS

IDLE = 10.0
"""Seconds for which Airflow is watched doing nothing."""
LOOK = 0.25
"""Seconds between two looks at a task's state."""


@dataclass
class Run:
    """What a run of a DAG took.

    :param cpu: CPU seconds of the workers' processes.
    :param airflow: CPU seconds of workers, scheduler, api-server and triggerer, above those of idling.
    :param wall: Seconds.
    :param held: Seconds for which its task ``work`` held a worker, all map indexes together.
    :param tasks: The instances of ``work``.
    """

    dag_id: str
    run_id: str
    cpu: float
    airflow: float
    wall: float
    held: float
    tasks: list[dict[str, Any]]


@dataclass
class Stack:
    flux: FluxEmulator
    s3: SeaweedFS
    airflow: AirflowStack
    idling: float = 0.0
    """CPU seconds a second that all of Airflow takes when there is nothing to do."""

    def idle(self) -> None:
        """Measure it."""
        used, began = self.all_cpu(), time.monotonic()
        time.sleep(IDLE)
        self.idling = (self.all_cpu() - used) / (time.monotonic() - began)

    def run(self, dag_id: str, **params: Any) -> Run:
        """Run the DAG to its end; it must succeed."""
        api = self.airflow.api
        api.wait_for_dag(dag_id)
        cpu, airflow, began, held = self.cpu(), self.all_cpu(), time.monotonic(), 0.0
        run_id = api.trigger(dag_id, params)
        while (state := api.run(dag_id, run_id)["state"]) not in RUN_ENDED:
            looked = time.monotonic()
            time.sleep(LOOK)
            tasks = self.tasks(dag_id, run_id)
            held += sum(ti["state"] == "running" for ti in tasks) * (time.monotonic() - looked)
        wall = time.monotonic() - began
        self._wait_for_idle_workers()
        airflow = self.all_cpu() - airflow - self.idling * wall
        tasks = self.tasks(dag_id, run_id)
        if state != "success":
            logs = [api.task_log(dag_id, run_id, "work", 1, ti["map_index"])[-3000:] for ti in tasks[:1]]
            raise RuntimeError(f"{dag_id} ended as {state}: {logs}")
        return Run(dag_id, run_id, self.cpu() - cpu, airflow, wall, held, tasks)

    def _wait_for_idle_workers(self) -> None:
        """Wait for the ends of the tasks' processes: only then is their CPU time known."""

        def idle() -> bool:
            workers = psutil.Process(self.airflow.pids("scheduler")[0]).children()
            return not any(worker.children() for worker in workers)

        wait_for(idle, timeout=30, what="the ends of the tasks' processes")

    def tasks(self, dag_id: str, run_id: str) -> list[dict[str, Any]]:
        return [ti for ti in self.airflow.api.task_instances(dag_id, run_id) if ti["task_id"] == "work"]

    def ended_at(self, run: Run) -> float:
        """Return the Unix time at which the last task of ``run`` ended."""
        return max(datetime.fromisoformat(ti["end_date"]).timestamp() for ti in run.tasks)

    def result(self, run: Run) -> Any:
        """Return what its (first) task returned."""
        return self.airflow.api.xcom(run.dag_id, run.run_id, "work", run.tasks[0]["map_index"])

    def cpu(self) -> float:
        """Return the CPU seconds of the workers so far: of all that the scheduler has started, and not its own."""
        scheduler, *workers = self.airflow.pids("scheduler")
        times = psutil.Process(scheduler).cpu_times()
        return times.children_user + times.children_system + sum(map(_cpu, workers))

    def all_cpu(self) -> float:
        """Return the CPU seconds so far of all that has to do with tasks; the dag-processor has not."""
        return sum(_cpu(pid) for name in ("api-server", "scheduler", "triggerer") for pid in self.airflow.pids(name))


def _cpu(pid: int) -> float:
    """Return the CPU seconds of a process and of its children that have ended."""
    with contextlib.suppress(psutil.NoSuchProcess):
        times = psutil.Process(pid).cpu_times()
        return times.user + times.system + times.children_user + times.children_system
    return 0.0


@contextmanager
def running(duration: float, parallelism: int = 4) -> Iterator[Stack]:
    """Run it all; jobs take ``duration`` seconds."""
    exit_on_signals()
    with TemporaryDirectory(prefix="flux-bench-") as name, contextlib.ExitStack() as servers:
        folder = Path(name)
        flux = servers.enter_context(FluxEmulator(process=True, duration=duration))
        s3 = servers.enter_context(SeaweedFS(folder / "s3"))
        connections = {"flux_default": flux.connection(), "aws_default": s3.connection()}
        dags = Path(__file__).with_name("dags")
        airflow = AirflowStack(folder / "airflow", dags, connections, parallelism=parallelism)
        stack = Stack(flux, s3, servers.enter_context(airflow))
        stack.airflow.api.wait_for_dag("bench_one")
        stack.run("bench_one")  # what is loaded on first use does not count
        stack.idle()
        yield stack
