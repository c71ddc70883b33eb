"""One image for each product of a CSV file, named after its SKU, up to a maximum cost.

The run ends with the images that ``max_cost`` allows. The next run, with the same or a larger one, generates those that
are missing, and reuses the others: ``reuse="always"``.

The file has the columns ``sku``, ``name`` and ``description``. Requires the connections flux_default and aws_default.
"""

from __future__ import annotations

import csv
import io
from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator

with DAG(
    dag_id="flux_csv_products",
    schedule=None,
    params={
        "products": Param("s3://flux/products.csv", type="string", description="URI of the CSV file"),
        "output": Param("s3://flux/products/", type="string", description="folder of the images"),
        "max_cost": Param(100, type="number", minimum=0, description="credits for this run, at most"),
    },
    tags=["flux"],
    doc_md=__doc__,
) as dag:

    @task
    def requests(*, params: dict[str, Any]) -> list[dict[str, str]]:
        """Return a request for each line of the file."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        text = S3Hook().read_key(params["products"])  # of another store: ObjectStoragePath(...).read_text()
        rows = csv.DictReader(io.StringIO(text.removeprefix("\ufeff"), newline=""))  # Excel writes a byte order mark
        return [
            {"prompt": f"{row['name']}: {row['description']}, on white, studio light", "file_name": row["sku"]}
            for row in rows
        ]

    FluxGenerateBatchOperator(
        task_id="images",
        requests=requests(),
        model="flux-dev",
        parameters={"width": 1024, "height": 1024, "seed": 7},
        output_uri="{{ params.output }}",
        reuse="always",
        max_cost="{{ params.max_cost }}",
        on_max_cost="stop",
        on_moderated="skip",
        retries=2,
    )
