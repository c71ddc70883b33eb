"""One image through a running Airflow: ready before deferring, deferred, and by a task that sleeps and polls."""

from __future__ import annotations

import json
from datetime import datetime
from statistics import median
from typing import NamedTuple
from urllib.parse import urlsplit

from benchmarks.harness import goal, report
from benchmarks.stack import Run, Stack, running


class Case(NamedTuple):
    """One DAG, and the seconds that its job takes."""

    label: str
    dag_id: str
    duration: float


class Took(NamedTuple):
    """What one run took, in seconds."""

    held: float
    cpu: float
    stored: float
    done: float


GRACE = Case("FluxGenerateOperator, ready before deferring", "bench_one", 3.0)
GRACE_BY_HAND = Case("@task with requests and sleep", "bench_one_by_hand", 3.0)
DEFERRED = Case("FluxGenerateOperator, deferred", "bench_one", 15.0)
DEFERRED_BY_HAND = Case("@task with requests and sleep", "bench_one_by_hand", 15.0)
CASES = (GRACE, GRACE_BY_HAND, DEFERRED, DEFERRED_BY_HAND)
ROUNDS = 5
SEEN = 24
"""Jobs that the triggerer has seen before: as any that runs for a while, it knows how long they take."""


def main() -> None:
    with running(duration=DEFERRED.duration, parallelism=SEEN // 2) as stack:
        stack.run("bench_mapped", count=SEEN)
        rounds = [{case: _measure(stack, case) for case in CASES} for _ in range(ROUNDS)]
    took = {case: Took(*map(median, zip(*(each[case] for each in rounds), strict=True))) for case in CASES}
    report(
        "One image",
        f"One task of a DAG run, the median of {ROUNDS}. CPU is that of the worker's processes, in all legs. "
        f"The triggerer has seen {SEEN} jobs before.",
        ["by", "job takes", "worker held", "worker CPU", "ready to stored", "ready to task done"],
        [
            [case.label, f"{case.duration:g} s", f"{held:.1f} s", f"{cpu:.2f} s", f"{stored:.1f} s", f"{done:.1f} s"]
            for case, (held, cpu, stored, done) in took.items()
        ],
        goal("CPU, ready before deferring, over by hand", took[GRACE].cpu / took[GRACE_BY_HAND].cpu, 1.15, unit=" x"),
        goal("CPU, deferred, over by hand", took[DEFERRED].cpu / took[DEFERRED_BY_HAND].cpu, 1.5, unit=" x"),
        goal("Ready to task done, deferred", took[DEFERRED].done, 1.5, unit=" s"),
        f"Of that, Airflow takes {took[DEFERRED].done - took[DEFERRED].stored:.1f} s once the image is stored: its "
        "triggerer passes events on once a second, then the scheduler starts the second leg. The rest is the poll, "
        "the download and the store.",
    )


def _measure(stack: Stack, case: Case) -> Took:
    stack.flux.settings(duration=case.duration)
    run = stack.run(case.dag_id)
    submitted_at, stored_at = _times(stack, run)
    ready_at = submitted_at + case.duration
    took = Took(run.held, run.cpu, stored_at - ready_at, stack.ended_at(run) - ready_at)
    print(case.label, took, flush=True)
    return took


def _times(stack: Stack, run: Run) -> tuple[float, float]:
    """Return the Unix times of the submit and of when the image was stored."""
    told = stack.result(run)
    if "stored_at" in told:
        return told["submitted_at"], told["stored_at"]
    uri = urlsplit(told["uri"])
    note = stack.s3.client().get_object(Bucket=uri.netloc, Key=f"{uri.path.lstrip('/')}.json")["Body"].read()
    return _unix(told["submitted_at"]), _unix(json.loads(note)["times"]["stored"])


def _unix(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


if __name__ == "__main__":
    main()
