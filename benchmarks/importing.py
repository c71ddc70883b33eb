"""Import: what a DAG file pays for our operators, on top of ``airflow.sdk``; ours and others'."""

from __future__ import annotations

import importlib
import json
import sys
import time
from statistics import median

from benchmarks.harness import airflow_home, contender, goal, report

ROUNDS = 5
HEAVY = ("httpx", "aiohttp", "boto3", "PIL")
GOAL = 30.0
"""Milliseconds."""
CONTENDERS = {
    "FluxGenerateOperator, FluxToS3Operator": (
        "airflow_provider_flux.operators.flux",
        "airflow_provider_flux.transfers.flux_to_s3",
    ),
    "HttpOperator": ("airflow.providers.http.operators.http",),
    "HttpToS3Operator": ("airflow.providers.amazon.aws.transfers.http_to_s3",),
}


def main() -> None:
    with airflow_home({}) as env:
        told = {
            name: [contender("benchmarks.importing", *modules, env=env) for _ in range(ROUNDS)]
            for name, modules in CONTENDERS.items()
        }
    times = {name: median(each["ms"] for each in rounds) for name, rounds in told.items()}
    ours = next(iter(CONTENDERS))
    report(
        "Import",
        f"Milliseconds on top of `airflow.sdk` with its operator and trigger base classes, the median of {ROUNDS}.",
        ["operators", "ms", "also loaded"],
        [[name, f"{times[name]:.0f}", ", ".join(told[name][0]["loaded"]) or "-"] for name in CONTENDERS],
        goal("Import", times[ours], GOAL, unit=" ms"),
        f"Of {', '.join(HEAVY)} the package loads: {', '.join(told[ours][0]['loaded']) or 'none'}.",
    )


def import_once(modules: list[str]) -> dict[str, object]:
    """Import the modules in this process, which has not done so yet; return what that took."""
    for base in ("airflow.triggers.base", "airflow.sdk.bases.operator", "airflow.sdk.bases.operatorlink"):
        importlib.import_module(base)
    before, began = set(sys.modules), time.perf_counter()
    for module in modules:
        importlib.import_module(module)
    took = time.perf_counter() - began
    return {"ms": took * 1000, "loaded": [name for name in HEAVY if name in set(sys.modules) - before]}


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(import_once(sys.argv[1:])))
    else:
        main()
