"""Many images in one task: throughput and CPU of the batch operator, mapped operators, and a mapped task."""

from __future__ import annotations

from benchmarks.harness import BATCH_OBSTACLE, goal, ratio, report
from benchmarks.stack import Run, Stack, running

DURATION = 2.0
MAX_ACTIVE = 24
COUNTS = {"bench_batch": 200, "bench_mapped": 16, "bench_mapped_by_hand": 16}
NAMES = {
    "bench_batch": "FluxGenerateBatchOperator",
    "bench_mapped": "FluxGenerateOperator, mapped",
    "bench_mapped_by_hand": "@task with requests and sleep, mapped",
}


def main() -> None:
    with running(DURATION, parallelism=16) as stack:
        runs = {dag_id: stack.run(dag_id, count=count) for dag_id, count in COUNTS.items()}
        rates = {dag_id: rate(stack, run) for dag_id, run in runs.items()}
    cpu = {dag_id: run.cpu / COUNTS[dag_id] for dag_id, run in runs.items()}
    airflow = {dag_id: run.airflow / COUNTS[dag_id] for dag_id, run in runs.items()}
    rows = [
        [
            NAMES[dag_id],
            count,
            f"{rates[dag_id]:.1f}",
            f"{cpu[dag_id] * 1000:.0f} ms",
            ratio(cpu[dag_id], cpu["bench_batch"]),
            f"{airflow[dag_id] * 1000:.0f} ms",
            ratio(airflow[dag_id], airflow["bench_batch"]),
            f"{runs[dag_id].held / count:.2f} s",
        ]
        for dag_id, count in COUNTS.items()
    ]
    ceiling = MAX_ACTIVE / DURATION
    report(
        "Batch",
        f"Jobs of {DURATION:g} s, at most {MAX_ACTIVE} active: at most {ceiling:g} images per second. CPU is per\n"
        "image: of the workers' processes alone, and of all of Airflow (workers, scheduler, api-server, triggerer)\n"
        "above its idle consumption. Mapped tasks run 16 at once. 200 images are measured as 8 whole rounds of 24.",
        ["by", "images", "images per second", "workers' CPU", "of ours", "Airflow's CPU", "of ours", "worker held"],
        rows,
        goal("Workers' CPU of an image of 200", cpu["bench_batch"] * 1000, 18, unit=" ms", obstacle=BATCH_OBSTACLE),
        goal("Throughput, of the ceiling", rates["bench_batch"] / ceiling * 100, 95, least=True, unit=" %"),
        goal(
            "Airflow's CPU of the mapped @task over ours",
            airflow["bench_mapped_by_hand"] / airflow["bench_batch"],
            50,
            least=True,
        ),
    )


def rate(stack: Stack, run: Run) -> float:
    """Return the images stored a second, over as many whole rounds as there are: a last round leaves places empty."""
    listed = stack.s3.client().list_objects_v2(Bucket=stack.s3.bucket, Prefix=f"{run.run_id}/")["Contents"]
    images = sorted(item["LastModified"].timestamp() for item in listed if item["Key"].endswith(".jpeg"))
    assert len(images) == COUNTS[run.dag_id], f"{len(images)} images of {run.dag_id}"
    whole = (len(images) - 1) // MAX_ACTIVE * MAX_ACTIVE
    if not whole:  # from the first submit to the last image
        return len(images) / (images[-1] - images[0] + DURATION)
    return whole / (images[whole] - images[0])


if __name__ == "__main__":
    main()
