"""Place a product image from S3 in a new scene, then edit the result again.

The worker reads the input images; the result of one task is the input of the next.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_flux.operators.flux import FluxGenerateOperator

with DAG(
    dag_id="flux_edit_with_reference",
    schedule=None,
    params={
        "reference": Param("s3://flux/reference/product.png", type="string"),
        "bucket": Param("flux", type="string"),
    },
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    scene = FluxGenerateOperator(
        task_id="scene",
        model="flux-2-pro",
        prompt="This product on a wet beach at dawn, product photography",
        parameters={"input_image": "{{ params.reference }}"},
        output_uri="s3://{{ params.bucket }}/edited/{{ run_id }}/scene.jpeg",
    )
    FluxGenerateOperator(
        task_id="at_night",
        model="flux-kontext-pro",
        prompt="The same scene at night, lit by the moon",
        parameters={"input_image": scene.output, "aspect_ratio": "4:3"},
        output_uri="s3://{{ params.bucket }}/edited/{{ run_id }}/night.png",
    )
