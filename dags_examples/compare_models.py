"""One prompt, several models: compare the images and their cost."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators.flux import FluxGenerateOperator

MODELS = ["flux-2-klein-9b", "flux-2-pro", "flux-2-max", "flux-pro-1.1"]

with DAG(
    dag_id="flux_compare_models",
    schedule=None,
    params={
        "prompt": Param("A hand-painted sign that says 'Fresh figs', on a market stall", type="string"),
        "bucket": Param("flux", type="string"),
    },
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    images = FluxGenerateOperator.partial(
        task_id="generate",
        prompt="{{ params.prompt }}",
        width=1024,
        height=768,
        seed=7,
        output_uri="s3://{{ params.bucket }}/compared/{{ run_id }}/{{ task.model }}.jpeg",
        map_index_template="{{ task.model }}",
    ).expand(model=MODELS)

    @task
    def table(images: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the credits and the seconds for each model."""
        return {image["model"]: {"credits": image["cost"], "seconds": image["duration"]} for image in images}

    table(images.output)
