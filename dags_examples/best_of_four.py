"""A person picks the best of four variants of an image; the chosen one is copied to where it is used.

The request shows the variants side by side as thumbnails, which the gallery serves to users with read access to this
DAG; each links to its image. Pending requests are in Airflow's UI under "Required Actions".
"""

from __future__ import annotations

import json
from typing import Any

from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator

# A table of Markdown, two by two: the first row is its head.
BODY = """{% set batch = ti.xcom_pull(task_ids="variants") %}
{% macro cell(n) -%}
**{{ n }}** [![Image {{ n }}]({{ macros.flux.image_url(batch, n - 1, thumbnail=True, relative=True) }})]\
({{ macros.flux.image_url(batch, n - 1, relative=True) }})
{%- endmacro %}
{{ params.prompt }}

| {{ cell(1) }} | {{ cell(2) }} |
|:---:|:---:|
| {{ cell(3) }} | {{ cell(4) }} |"""

with DAG(
    dag_id="flux_best_of_four",
    schedule=None,
    params={
        "bucket": Param("flux", type="string"),
        "prompt": Param("A shop window at dusk, gouache", type="string"),
    },
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    variants = FluxGenerateBatchOperator(
        task_id="variants",
        requests=[{"prompt": "{{ params.prompt }}", "variants": 4, "file_name": "window"}],
        model="flux-dev",
        output_uri="s3://{{ params.bucket }}/best-of-four/{{ run_id }}/",
    )
    pick = HITLOperator(
        task_id="pick",
        subject="Which image shall be published?",
        body=BODY,
        options=["1", "2", "3", "4"],
    )

    @task
    def best(batch: dict[str, Any], picked: dict[str, Any]) -> dict[str, Any]:
        """Return the image that was picked: its line of the manifest, without the prompt."""
        from airflow.providers.amazon.aws.hooks.s3 import S3Hook

        lines = [json.loads(line) for line in S3Hook().read_key(batch["manifest"]).splitlines()]
        chosen = lines[int(picked["chosen_options"][0]) - 1]
        return {name: value for name, value in chosen.items() if name != "prompt"}

    variants >> pick
    FluxToS3Operator(
        task_id="publish",
        generation=best(variants.output, pick.output),
        s3_key="s3://{{ params.bucket }}/published/{{ run_id }}.jpeg",
    )
