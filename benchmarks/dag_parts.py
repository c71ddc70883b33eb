"""What the benchmarks' DAGs share, ours and those without us."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, task

IMAGE: dict[str, Any] = {"model": "flux-dev", "width": 256, "height": 256}
COUNT = {"count": Param(1, type="integer")}


@task
def prompts(params: Any = None) -> list[str]:
    return [f"kite {number}" for number in range(params["count"])]
