"""One image through a running Airflow: ready before deferring, deferred, and by a task that sleeps and polls."""

from __future__ import annotations

import json
from datetime import datetime
from statistics import median
from urllib.parse import urlsplit

from benchmarks.harness import report
from benchmarks.stack import Run, Stack, running

CASES = {
    "FluxGenerateOperator, ready before deferring": ("bench_one", 3.0),
    "@task with requests and sleep": ("bench_one_by_hand", 3.0),
    "FluxGenerateOperator, deferred": ("bench_one", 15.0),
    "@task with requests and sleep ": ("bench_one_by_hand", 15.0),
}
"""Label -> DAG, seconds that the job takes."""


ROUNDS = 3


def main() -> None:
    rows = []
    with running(duration=3.0) as stack:
        for label, (dag_id, duration) in CASES.items():
            stack.flux.settings(duration=duration)
            rounds = [_measure(stack, dag_id, duration) for _ in range(ROUNDS)]
            print(label, rounds, flush=True)
            rows.append(
                [label.strip(), f"{duration:g} s", *(f"{median(each):.1f} s" for each in zip(*rounds, strict=True))]
            )
    report(
        "One image",
        f"One task of a DAG run, the median of {ROUNDS}. CPU is that of the worker's processes.",
        ["by", "job takes", "worker held", "worker CPU", "ready to stored", "ready to task done"],
        rows,
    )


def _measure(stack: Stack, dag_id: str, duration: float) -> tuple[float, float, float, float]:
    run = stack.run(dag_id)
    submitted_at, stored_at = _times(stack, run)
    ready_at = submitted_at + duration
    return run.held, run.cpu, stored_at - ready_at, stack.ended_at(run) - ready_at


def _times(stack: Stack, run: Run) -> tuple[float, float]:
    """Return the Unix times of the submit and of when the image was stored."""
    told = stack.result(run)
    if "stored_at" in told:
        return told["submitted_at"], told["stored_at"]
    uri = urlsplit(told["uri"])
    note = stack.s3.client().get_object(Bucket=uri.netloc, Key=f"{uri.path.lstrip('/')}.json")["Body"].read()
    stored = json.loads(note)["times"]["stored"]
    return told["submitted_at"], datetime.fromisoformat(stored).timestamp()


if __name__ == "__main__":
    main()
