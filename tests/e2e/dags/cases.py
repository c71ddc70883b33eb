"""DAGs for the end-to-end tests: each shows one thing that needs a running Airflow."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG

from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator

SMALL: dict[str, Any] = {"model": "flux-dev", "width": 256, "height": 256, "seed": 7}

with DAG("e2e_not_waited", schedule=None):
    jobs = FluxGenerateOperator.partial(task_id="submit", wait_for_completion=False, **SMALL).expand(
        prompt=["a pear", "a fig"]
    )
    FluxToS3Operator.partial(
        task_id="upload", s3_key="s3://flux/e2e/{{ run_id }}/{{ ti.map_index }}.jpeg", replace=True
    ).expand(generation=jobs.output)

with DAG("e2e_blocking", schedule=None):
    job = FluxGenerateOperator(task_id="generate", prompt="a pear", deferrable=False, **SMALL)
    FluxToS3Operator(
        task_id="upload", generation=job.output, s3_bucket="flux", s3_key="e2e/blocking.jpeg", deferrable=False
    )

with DAG("e2e_moderated", schedule=None, default_args={"retries": 2, "retry_delay": timedelta(seconds=1)}):
    FluxGenerateOperator(task_id="generate", prompt="nsfw", **SMALL)

with DAG("e2e_secrets", schedule=None):
    FluxGenerateOperator(
        task_id="generate",
        prompt="a pear that nobody may read of",
        webhook_url="https://hooks.example/flux",
        webhook_secret="{{ 's3cr3t-' ~ 'hook' }}",
        output_uri="s3://flux/e2e/secrets/",
        grace=0,
        **SMALL,
    )

RETRIED = {"retries": 3, "retry_delay": timedelta(seconds=1)}

with DAG("e2e_money", schedule=None, default_args=RETRIED):
    FluxGenerateOperator(
        task_id="generate", prompt="a pear", output_uri="s3://flux/e2e/money/{{ run_id }}/", grace=0, **SMALL
    )

with DAG("e2e_in_grace", schedule=None, default_args=RETRIED):
    FluxGenerateOperator(
        task_id="generate", prompt="a pear", output_uri="s3://flux/e2e/grace/{{ run_id }}/", grace=60, **SMALL
    )
