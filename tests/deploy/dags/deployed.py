"""DAGs for the tests of a distributed deployment: many waits, a batch, and one recipe of many runs."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator

SMALL: dict[str, Any] = {"model": "flux-dev", "width": 256, "height": 256}
RETRIED = {"retries": 5, "retry_delay": timedelta(seconds=1)}
FOLDER = "s3://flux/deploy/{{ run_id }}"

for dag_id, count in (("deploy_waits", 40), ("deploy_few_waits", 12)):
    with DAG(dag_id, schedule=None, default_args=RETRIED, max_active_tasks=64):
        FluxGenerateOperator.partial(task_id="generate", output_uri=f"{FOLDER}/", defer_after=0, **SMALL).expand(
            prompt=[f"a pear {number}" for number in range(count)]
        )

with DAG("deploy_on_worker", schedule=None, default_args=RETRIED):
    FluxGenerateOperator.partial(task_id="generate", output_uri=f"{FOLDER}/", defer_after=120, **SMALL).expand(
        prompt=[f"a fig {number}" for number in range(8)]
    )

with DAG("deploy_batch", schedule=None, default_args=RETRIED):
    FluxGenerateBatchOperator(
        task_id="generate",
        requests=[{"prompt": f"a quince {number}"} for number in range(40)],
        output_uri=f"{FOLDER}/",
        max_active=8,
        flux_conn_id="flux_short_timeout",
        model="flux-dev",
        parameters={"width": 256, "height": 256},
    )

with DAG(
    "deploy_recipe",
    schedule="@daily",
    start_date=datetime(2026, 1, 1),
    end_date=datetime(2026, 1, 6),
    catchup=False,
    default_args=RETRIED,
    max_active_runs=16,
):
    FluxGenerateOperator(
        task_id="generate",
        prompt="a medlar",
        output_uri="s3://flux/deploy/recipe/medlar.jpeg",
        reuse="always",
        defer_after=0,
        **SMALL,
    )
