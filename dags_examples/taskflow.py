"""TaskFlow: functions return the prompts, ``@task.flux`` generates the images; mapped over a list."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG, Param, task

with DAG(
    dag_id="flux_taskflow",
    schedule=None,
    params={"bucket": Param("flux", type="string")},
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    FOLDER = "s3://{{ params.bucket }}/taskflow/{{ run_id }}/"

    @task
    def fruits() -> list[str]:
        """Stand-in for a query of your product table."""
        return ["pear", "fig"]

    @task.flux(model="flux-dev", width=512, height=512, output_uri=FOLDER)
    def still_life(fruit: str) -> str:
        """Return the prompt."""
        return f"A still life with a {fruit}, oil on canvas"

    @task.flux(model="flux-2-pro", output_uri=FOLDER)
    def poster(images: list[dict[str, Any]]) -> dict[str, Any]:
        """Return the fields of the request, with the earlier images as references."""
        references = {f"input_image{f'_{n}' if n > 1 else ''}": image for n, image in enumerate(images, 1)}
        return {"prompt": "A poster of these still lifes side by side", "width": 1024, "height": 512, **references}

    poster(still_life.expand(fruit=fruits()))
