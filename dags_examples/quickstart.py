"""Three prompts become three images in S3, in three ways.

Needs the connections ``flux_default`` and ``aws_default`` and a bucket; ``make demo`` provides all of them.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator

FOLDER = "s3://{{ params.bucket }}/quickstart/{{ run_id }}"

with DAG(
    dag_id="flux_quickstart",
    schedule=None,
    params={"bucket": Param("flux", type="string", description="S3 bucket for the images")},
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    # 1. Generate, then upload: two tasks, each with its own retries.
    hero = FluxGenerateOperator(
        task_id="generate_hero",
        model="flux-pro-1.1",
        prompt="A lighthouse on a cliff at dawn, oil on canvas",
        width=1024,
        height=768,
        seed=42,
    )
    FluxToS3Operator(task_id="hero_to_s3", generation=hero.output, s3_key=f"{FOLDER}/hero.jpeg")

    # 2. One task that generates and stores.
    FluxGenerateOperator(
        task_id="generate_icon",
        model="flux-2-pro",
        prompt="App icon: a paper kite, flat design",
        width=512,
        height=512,
        output_format="png",
        output_uri=f"{FOLDER}/icon.png",
    )

    # 3. Mapped: one task for each prompt in the list; in a folder, each image gets a name of its own.
    FluxGenerateOperator.partial(
        task_id="generate_banner",
        model="flux-dev",
        width=1280,
        height=512,
        output_uri=f"{FOLDER}/banners/",
    ).expand(prompt=["Autumn leaves over a calm lake, wide banner"])
