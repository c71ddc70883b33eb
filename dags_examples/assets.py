"""Two DAGs: one generates an image of the day, the other starts whenever there is a new image.

The asset's event contains the task's result. An alias adds an asset for the file, whose key is known at run time only.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Asset, AssetAlias, Param, task

from airflow_provider_flux.operators.flux import FluxGenerateOperator

IMAGE_OF_THE_DAY = Asset(name="image_of_the_day", uri="flux://image-of-the-day")

with DAG(
    dag_id="flux_image_of_the_day",
    schedule=None,
    params={"bucket": Param("flux", type="string")},
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    FluxGenerateOperator(
        task_id="generate",
        model="flux-dev",
        prompt="The harbour on {{ dag_run.run_after | ds }}, watercolour",
        width=512,
        height=512,
        output_uri="s3://{{ params.bucket }}/of-the-day/{{ run_id }}.jpeg",
        outlets=[IMAGE_OF_THE_DAY, AssetAlias("flux_images")],
    )

with DAG(dag_id="flux_publish_image_of_the_day", schedule=[IMAGE_OF_THE_DAY], tags=["flux"], doc_md=__doc__):

    @task(inlets=[IMAGE_OF_THE_DAY])
    def publish(*, inlet_events: Any) -> str:
        """Stand-in for publishing: return the URI and the size of the newest image."""
        extra = inlet_events[IMAGE_OF_THE_DAY][-1].extra
        return f"{extra['uri']} ({extra['width']}x{extra['height']})"

    publish()
