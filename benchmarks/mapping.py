"""What the DAGs with many images share, ours and those without us."""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param, task

COUNT = {"count": Param(1, type="integer")}


@task
def prompts(params: Any = None) -> list[str]:
    return [f"kite {number}" for number in range(params["count"])]
