"""Growth: what an image costs in a batch of 10, 100 and 1,000."""

from __future__ import annotations

from benchmarks.harness import BATCH_OBSTACLE, goal, report
from benchmarks.stack import running

COUNTS = (10, 100, 1000)


def main() -> None:
    with running(duration=0.5) as stack:
        runs = {count: stack.run("bench_batch", count=count) for count in COUNTS}
    cpu = {count: run.cpu / count for count, run in runs.items()}
    rows = [
        [count, f"{cpu[count] * 1000:.0f} ms", f"{run.cpu:.1f} s", f"{run.wall:.0f} s"] for count, run in runs.items()
    ]
    report(
        "Growth",
        "One FluxGenerateBatchOperator. CPU is that of its worker, which includes starting one task, shared by all\n"
        "its images.",
        ["images", "CPU per image", "CPU of the run", "wall"],
        rows,
        goal("CPU of an image of 1,000", cpu[1000] * 1000, 14, unit=" ms", obstacle=BATCH_OBSTACLE),
        goal("CPU per image, 1,000 over 100", cpu[1000] / cpu[100], 1.1),
    )


if __name__ == "__main__":
    main()
