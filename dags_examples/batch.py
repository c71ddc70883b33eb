"""A catalogue in one task: many images, with a limit on their cost; the next task reads the manifest.

With ``reuse="always"``, a run pays only for the images that are new since the last run.
"""

from __future__ import annotations

import json
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator

with DAG(
    dag_id="flux_batch",
    schedule=None,
    params={"bucket": Param("flux", type="string")},
    tags=["flux"],
    doc_md=__doc__,
) as dag:

    @task
    def requests() -> list[str | dict[str, Any]]:
        """Stand-in for a query of your product table."""
        return [
            "A pear on a white table, studio light",
            "A fig on a white table, studio light",
            {"prompt": "All fruit of the season, a poster", "model": "flux-2-pro", "file_name": "poster"},
        ]

    catalogue = FluxGenerateBatchOperator(
        task_id="catalogue",
        requests=requests(),
        model="flux-dev",
        parameters={"width": 512, "height": 512},
        output_uri="s3://{{ params.bucket }}/catalogue/",
        reuse="always",
        on_moderated="skip",
        max_cost=100,
        retries=2,
    )

    @task
    def published(batch: dict[str, Any]) -> list[str]:
        """Stand-in for using the images: return their URIs."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        lines = [json.loads(line) for line in S3Hook().read_key(batch["manifest"]).splitlines()]
        return [line["uri"] for line in lines if line["state"] == "stored"]

    published(catalogue.output)
