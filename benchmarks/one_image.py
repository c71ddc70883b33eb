"""One image through a running Airflow: in grace, deferred, and by a task that sleeps and asks."""

from __future__ import annotations

import json
from datetime import datetime
from urllib.parse import urlsplit

from benchmarks.harness import report
from benchmarks.stack import Run, Stack, running

CASES = {
    "FluxGenerateOperator, ready in grace": ("bench_one", 3.0),
    "@task with requests and sleep": ("bench_one_by_hand", 3.0),
    "FluxGenerateOperator, deferred": ("bench_one", 15.0),
    "@task with requests and sleep ": ("bench_one_by_hand", 15.0),
}
"""Label -> DAG, seconds that the job takes."""


def main() -> None:
    rows = []
    with running(duration=3.0) as stack:
        for label, (dag_id, duration) in CASES.items():
            stack.flux.settings(duration=duration)
            run = stack.run(dag_id)
            submitted_at, stored_at = _times(stack, run)
            ready_at = submitted_at + duration
            rows.append(
                [
                    label.strip(),
                    f"{duration:g} s",
                    f"{run.held:.1f} s",
                    f"{run.cpu:.1f} s",
                    f"{stored_at - ready_at:.1f} s",
                    f"{stack.ended_at(run) - ready_at:.1f} s",
                ]
            )
    report(
        "One image",
        "From the trigger of a DAG run to its end. CPU is that of all of Airflow, less what it takes when idle.",
        ["by", "job takes", "worker held", "CPU", "ready to stored", "ready to task done"],
        rows,
    )


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
