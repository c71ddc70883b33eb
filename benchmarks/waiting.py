"""Waiting for many jobs in one triggerer: CPU, longest block of its event loop, polls, ours and others'.

Each contender is a real TriggerRunner in a process of its own, whose supervisor is left out.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import time
from collections.abc import Iterable
from types import SimpleNamespace
from typing import Any

from airflow_provider_flux.emulator import FluxEmulator
from benchmarks.harness import airflow_home, contender, goal, ratio, report

MODEL = "flux-pro-1.1-ultra"
DURATION = (7.0, 21.0)
"""Evenly spread: 14 s with a standard deviation of 4 s."""
INTERVAL = 2.0
SETTLED = 3.0
"""Seconds after the last trigger was created; what comes later is waiting and no longer starting."""

CONTENDERS = {
    "ours": "FluxResultTrigger, schedule learned",
    "outdated": "FluxResultTrigger, jobs of 0.5 s seen before",
    "cold": "FluxResultTrigger, first jobs of its process",
    "ours-fixed": "FluxResultTrigger, every 2 s",
    "own-client": "a trigger with an httpx client of its own, every 2 s",
    "sensor": "HttpSensorTrigger, every 2 s",
    "blocking": "blocking calls as in OpenAIBatchTrigger, every 2 s",
}

SEEN = {
    "ours": [DURATION[0] + (DURATION[1] - DURATION[0]) * (number * 37 % 100 + 0.5) / 100 for number in range(100)],
    "outdated": [0.5] * 100,
}
"""Seconds of the jobs that a contender's process has seen before, in mixed order: the latest ones count most."""


def main() -> None:
    measured: dict[tuple[str, int], Any] = {}
    with FluxEmulator(process=True, duration=DURATION, max_active=5000, credits=10**9) as flux:
        http = {"conn_type": "http", "host": flux.url, "extra": {"Authorization": f"Bearer {flux.key}"}}
        with airflow_home({"flux_default": flux.connection(), "http_flux": http}) as env:
            for count in (100, 1000):
                for name in CONTENDERS:
                    flux.reset()
                    told = contender("benchmarks.waiting", name, count, flux.url, flux.key, env=env)
                    measured[name, count] = {**told, "polls": flux.stats()["polls"]}
                    print(f"{count} {name}: {measured[name, count]}", flush=True)
    rows = [
        [
            count,
            CONTENDERS[name],
            f"{told['cpu']:.1f} s",
            ratio(told["cpu"], measured["ours", count]["cpu"]),
            f"{told['share']:.0%}",
            f"{told['starting'] * 1000:.0f} ms",
            f"{told['block'] * 1000:.0f} ms",
            f"{told['polls'] / count:.1f}",
            f"{poll_cpu(told) * 1000:.2f} ms",
        ]
        for (name, count), told in measured.items()
    ]
    ours, fixed = measured["ours", 1000], measured["ours-fixed", 1000]
    report(
        "Waiting",
        "Jobs of 14 s (standard deviation 4 s) in one triggerer. Blocks are those of the event loop; the share is of\n"
        "one core. A trigger that uses a whole core polls later than it should, so compare the CPU per poll.",
        [
            "jobs",
            "trigger",
            "CPU",
            "of ours",
            "CPU share",
            "block at start",
            "block after",
            "polls per job",
            "CPU per poll",
        ],
        rows,
        goal(
            f"1,000 jobs, longest block after the start ({ours['busy'] * 1000:.0f} ms of it are the thread's own work)",
            ours["block"] * 1000,
            30,
            unit=" ms",
        ),
        goal("1,000 jobs, CPU share", ours["share"] * 100, 12, unit=" %"),
        goal(
            "1,000 jobs, polls per job when jobs of 0.5 s were seen before",
            measured["outdated", 1000]["polls"] / 1000,
            8,
        ),
        goal(
            "1,000 jobs at the same interval, CPU per poll of the httpx trigger over ours",
            poll_cpu(measured["own-client", 1000]) / poll_cpu(fixed),
            10,
            least=True,
        ),
    )


def poll_cpu(told: dict[str, float]) -> float:
    """Return the CPU seconds for each poll, all else shared out among them."""
    return told["cpu"] / told["polls"]


def wait_for_jobs(name: str, count: int, url: str, key: str) -> dict[str, float]:
    """Run one contender in this process; return what it took."""
    runner = _runner([_workload(name, number, job) for number, job in enumerate(_submit(count, url, key))], name, url)
    runner.run()
    told: dict[str, float] = runner.told
    return told


def _submit(count: int, url: str, key: str) -> list[dict[str, Any]]:
    import httpx

    from airflow_provider_flux.client.jobs import Job

    jobs = []
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {key}"}) as http:
        for _ in range(count):
            job_id = http.post(f"/flux/v1/{MODEL}", json={"prompt": "a kite"}).raise_for_status().json()["id"]
            jobs.append(Job(job_id, MODEL, submitted_at=time.time()).to_dict())
    return jobs


def _workload(name: str, number: int, job: dict[str, Any]) -> Any:
    from airflow.executors.workloads.trigger import RunTrigger
    from airflow.models.trigger import Trigger
    from airflow.triggers.base import BaseTrigger

    from airflow_provider_flux.triggers.flux import FluxResultTrigger
    from benchmarks import peers

    path = f"/flux/v1/get_result?id={job['id']}"
    trigger: BaseTrigger
    if name in ("ours", "outdated", "cold", "ours-fixed"):
        interval = INTERVAL if name == "ours-fixed" else None
        trigger = FluxResultTrigger(job=job, deadline=time.time() + 600, poll_interval=interval)
        classpath, kwargs = trigger.serialize()
    else:
        peer = {"own-client": "OwnClientTrigger", "sensor": "SensorTrigger", "blocking": "BlockingTrigger"}[name]
        classpath, kwargs = f"{peers.__name__}.{peer}", {"path": path, "interval": INTERVAL}
    return RunTrigger(id=number + 1, classpath=classpath, encrypted_kwargs=Trigger.encrypt_kwargs(kwargs))


def _runner(workloads: list[Any], name: str, url: str) -> Any:
    from airflow.jobs.triggerer_job_runner import TriggerRunner

    class Runner(TriggerRunner):
        """The triggerer's own loop; takes all its triggers at once and ends with the last of them."""

        async def init_comms(self) -> None:
            self.comms_decoder = SimpleNamespace(_reader_task=asyncio.create_task(asyncio.Event().wait()))  # type: ignore[assignment]
            self.meter, self.left = Meter(), len(workloads)
            _see_jobs(SEEN.get(name, ()), url)
            self.to_create.extend(workloads)

        async def create_triggers(self) -> None:
            starting = bool(self.to_create)
            await super().create_triggers()
            if starting:
                self.meter.settle()

        async def sync_state_to_supervisor(self, finished_ids: list[int]) -> None:
            failed = [entry for entry in self.failed_triggers if entry[1] is not None]
            assert not failed, failed
            self.left -= len(finished_ids)
            if not self.left:
                self.told = self.meter.stop()
                self._handle_signal(0, None)

    return Runner()


def _see_jobs(durations: Iterable[float], url: str) -> None:
    from airflow_provider_flux.client.estimator import estimator_for

    for seconds in durations:
        estimator_for(url, MODEL).add_ready(seconds)


class Meter:
    """CPU of this process, and the longest that its event loop was blocked: at the start, and later."""

    def __init__(self) -> None:
        self.began, self.starting, self.block = (time.process_time(), time.monotonic()), 0.0, 0.0
        self.settled: tuple[float, float] | None = None
        self.started, self.busy, self.busiest = False, 0.0, 0.0
        self.task = asyncio.create_task(self._watch())

    def settle(self) -> None:
        """Call when all triggers are created: counts as the start for a little while longer."""
        asyncio.get_running_loop().call_later(SETTLED, setattr, self, "started", True)

    async def _watch(self) -> None:
        while True:
            slept, busy = time.monotonic(), time.thread_time()
            await asyncio.sleep(0.01)
            block = time.monotonic() - slept - 0.01
            if self.settled:
                # What is more than the CPU time of this thread is the machine, which runs something else.
                self.block, self.busy = max((self.block, self.busy), (block, time.thread_time() - busy))
                self.busiest = max(self.busiest, time.thread_time() - busy)
            else:
                self.starting = max(self.starting, block)
            if self.started and not self.settled:
                # A full collection of Airflow's own heap alone pauses 130 ms and more; it is in neither figure,
                # and what has piled up behind it is let through before anything is measured again.
                gc.collect()
                gc.freeze()
                await asyncio.sleep(0.5)
                self.settled = (time.process_time(), time.monotonic())

    def stop(self) -> dict[str, float]:
        """Return what was measured."""
        self.task.cancel()
        cpu, wall = self.settled or self.began  # some are through before they have all started
        used = time.process_time()
        return {
            "cpu": used - self.began[0],
            "share": (used - cpu) / (time.monotonic() - wall),
            "starting": self.starting,
            "block": self.block,
            "busy": self.busy,
            "busiest": self.busiest,
        }


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(wait_for_jobs(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])))
    else:
        main()
