"""The task that one would write without us; in a file of its own, which loads nothing of ours."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, task

from benchmarks.mapping import COUNT, prompts
from benchmarks.request import IMAGE


@task
def by_hand(prompt: str, run_id: Any = None, ti: Any = None) -> dict[str, float]:
    """Submit, sleep and ask, store: a worker is held all the while."""
    import time

    import requests
    from airflow.providers.amazon.aws.hooks.s3 import S3Hook
    from airflow.sdk import BaseHook

    connection = BaseHook.get_connection("flux_default")
    api, headers = f"{connection.host}/flux/v1", {"Authorization": f"Bearer {connection.password}"}
    submitted_at = time.time()
    job = requests.post(f"{api}/flux-dev", json={"prompt": prompt, **IMAGE}, headers=headers, timeout=30).json()
    while True:
        told = requests.get(f"{api}/get_result", params={"id": job["id"]}, headers=headers, timeout=30).json()
        if told["status"] == "Ready":
            break
        time.sleep(2)
    image = requests.get(told["result"]["sample"], timeout=30).content
    S3Hook("aws_default").load_bytes(image, f"{run_id}/{ti.map_index}.jpeg", "flux")
    return {"submitted_at": submitted_at, "stored_at": time.time()}


with DAG("bench_one_by_hand", schedule=None):
    by_hand.override(task_id="work")("a kite")

with DAG("bench_mapped_by_hand", schedule=None, params=COUNT):
    by_hand.override(task_id="work").expand(prompt=prompts())
