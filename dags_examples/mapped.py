"""A list of prompts that is known only at run time: one image for each, generated and uploaded in parallel."""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator

with DAG(
    dag_id="flux_mapped",
    schedule=None,
    params={"bucket": Param("flux", type="string")},
    # CometAPI and Black Forest Labs allow 24 active jobs per account.
    max_active_tasks=24,
    tags=["flux"],
    doc_md=__doc__,
) as dag:

    @task
    def prompts() -> list[str]:
        """Stand-in for a query of your product table."""
        return [f"A {fruit} on a white table, studio light" for fruit in ("pear", "fig", "quince")]

    images = FluxGenerateOperator.partial(
        task_id="generate", model="flux-pro-1.1", width=512, height=512, seed=7, on_moderated="skip"
    ).expand(prompt=prompts())

    FluxToS3Operator.partial(
        task_id="upload",
        # A moderated prompt, whose task is skipped, does not prevent the other images from being stored.
        trigger_rule="none_failed",
        s3_bucket="{{ params.bucket }}",
        s3_key="mapped/{{ run_id }}/{{ ti.map_index }}.jpeg",
    ).expand(generation=images.output)
