"""A person approves what a batch is expected to cost; then it runs. A plan submits nothing.

With ``reuse="always"``, a plan knows the images of earlier runs, and only new ones are paid for. Pending requests are
in Airflow's UI under "Required Actions".
"""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.hitl import ApprovalOperator
from airflow.sdk import DAG, Param

from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator

PRODUCTS = ["teapot", "vase", "bowl"]
BATCH: dict[str, Any] = {
    "requests": [{"prompt": f"A stoneware {name} on white", "file_name": name} for name in PRODUCTS],
    "model": "flux-2-pro",
    "parameters": {"width": 1024, "height": 768, "seed": 11},
    "output_uri": "s3://{{ params.bucket }}/products/",
    "reuse": "always",
}

with DAG(
    dag_id="flux_approve_spend",
    schedule=None,
    params={"bucket": Param("flux", type="string")},
    render_template_as_native_obj=True,
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    plan = FluxGenerateBatchOperator(task_id="plan", plan_only=True, **BATCH)
    approve = ApprovalOperator(
        task_id="approve",
        subject="Generate the product images?",
        body="""{% set plan = ti.xcom_pull(task_ids="plan") %}
{{ plan.counts.new }} new images for {{ plan.estimated_cost }} credits (${{ plan.estimated_cost_usd }}),
{{ plan.unknown_prices }} of unknown price; {{ plan.counts.reused }} are reused, {{ plan.counts.refused }} refused.""",
    )
    # The approved amount is the most that is spent.
    generate = FluxGenerateBatchOperator(
        task_id="generate", max_cost="{{ ti.xcom_pull(task_ids='plan').estimated_cost }}", **BATCH
    )
    plan >> approve >> generate
