"""DAGs for the end-to-end tests: each shows one thing that needs a running Airflow."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from airflow.sdk import DAG, AssetAlias, task

from airflow_provider_flux.exceptions import FluxServiceError
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
    WITH_SECRETS = {
        "prompt": "a pear that nobody may read of",
        "webhook_url": "https://hooks.example/flux",
        "webhook_secret": "{{ 's3cr3t-' ~ 'hook' }}",
        **SMALL,
    }
    FluxGenerateOperator(task_id="generate", output_uri="s3://flux/e2e/{{ run_id }}/", defer_after=0, **WITH_SECRETS)
    submit = FluxGenerateOperator(task_id="submit", wait_for_completion=False, **WITH_SECRETS)
    FluxToS3Operator(task_id="upload", generation=submit.output, s3_key="s3://flux/e2e/{{ run_id }}/upload.jpeg")

RETRIED = {"retries": 9, "retry_delay": timedelta(seconds=1)}


def generate_pear(task_id: str, **arguments: Any) -> None:
    """Make a task; its job has the task's name in its prompt, and its image has it in its key."""
    uri = f"s3://flux/e2e/{{{{ run_id }}}}/{task_id}.jpeg"
    FluxGenerateOperator(task_id=task_id, prompt=f"a pear {task_id}", **{"output_uri": uri, **SMALL, **arguments})


with DAG("e2e_money", schedule=None, default_args=RETRIED):
    generate_pear("generate", defer_after=0)

with DAG("e2e_on_worker", schedule=None, default_args=RETRIED):
    for name in ("waiting", "downloading", "uploading"):
        generate_pear(name, defer_after=60)
    generate_pear("submitting", defer_after=60, flux_conn_id="flux_short_timeout")
    generate_pear("orphan", defer_after=60, flux_conn_id="flux_short_timeout", on_orphan="fail")

with DAG("e2e_on_triggerer", schedule=None, default_args=RETRIED):
    generate_pear("waiting", defer_after=0)
    generate_pear("storing", defer_after=0)

with DAG("e2e_on_both", schedule=None, default_args=RETRIED):
    generate_pear("worker", defer_after=60)
    generate_pear("triggerer", defer_after=0)

with DAG("e2e_timeout", schedule=None, dagrun_timeout=timedelta(seconds=15)):
    generate_pear("outlasted", defer_after=0)

try:
    from airflow.sdk import ExceptionRetryPolicy, RetryRule
except ImportError:  # before Airflow 3.3
    pass
else:
    AT_ONCE = RetryRule(FluxServiceError, retry_delay=timedelta(seconds=1), reason="FLUX has an outage.")
    LATER = {"retries": 1, "retry_delay": timedelta(days=1), "retry_policy": ExceptionRetryPolicy(rules=[AT_ONCE])}

    with DAG("e2e_retry_policy", schedule=None, default_args=LATER):
        generate_pear("retried")

# A DAG of one past day, of which nothing is scheduled by itself.
with DAG("e2e_daily", schedule="@daily", start_date=datetime(2026, 1, 1), end_date=datetime(2026, 1, 1), catchup=False):
    generate_pear("daily", output_uri="s3://flux/e2e/daily/{{ ds }}.jpeg", reuse="always")

with DAG("e2e_aliases", schedule=None):
    for task_id, lot in (("one", "#1"), ("two", "#2")):
        uri = f"s3://aws_default@flux/e2e/{{{{ run_id }}}}/birne-ä {lot}.jpeg"
        generate_pear(task_id, output_uri=uri, defer_after=0, outlets=[AssetAlias("e2e_images")])

with DAG("e2e_mapped", schedule=None):

    @task
    def prompts() -> list[str]:
        listed: list[str] = json.loads((Path(os.environ["AIRFLOW_HOME"]) / "prompts.json").read_text())
        return listed

    listed = prompts()
    FluxGenerateOperator.partial(
        task_id="stored", output_uri="s3://flux/e2e/{{ run_id }}/{{ ti.map_index }}.jpeg", defer_after=60, **SMALL
    ).expand(prompt=listed)
    FluxGenerateOperator.partial(task_id="not_stored", defer_after=60, **SMALL).expand(prompt=listed)
