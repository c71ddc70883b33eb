"""DAGs for the gallery's tests: mapped images, their copies, many images of one task, no image, and a failure."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, task

from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator

PROMPTS = [
    """<script>document.title = "broken"</script> & "a pear" on the 'table'""",
    "A fig on a white table",
    "A quince on a white table",
]
# Larger than a number in JavaScript can represent exactly.
SEED = 2**64 - 1

with DAG("e2e_gallery", schedule=None):
    images = FluxGenerateOperator.partial(
        task_id="generate",
        model="flux-dev",
        width=512,
        height=384,
        seed=SEED,
        output_uri="s3://flux/gallery/{{ run_id }}/",
    ).expand(prompt=PROMPTS)
    FluxToS3Operator.partial(
        task_id="copy", s3_key="s3://flux/gallery/{{ run_id }}/copy-{{ ti.map_index }}.jpeg"
    ).expand(generation=images.output)
    FluxGenerateOperator(task_id="moderated", model="flux-dev", prompt="nsfw", output_uri="s3://flux/gallery/no.png")

    @task
    def many() -> list[dict[str, Any]]:
        """50 images of one task, through the hook."""
        from airflow_provider_flux.hooks.flux import FluxHook
        from airflow_provider_flux.images.transfer import download_and_store
        from airflow_provider_flux.storage import open_store

        hook, results = FluxHook(), []
        for start in range(0, 50, 10):
            jobs = [
                hook.submit("flux-dev", {"prompt": f"A seed, number {number}", "width": 256, "height": 256})
                for number in range(start, start + 10)
            ]
            for job in jobs:
                store = open_store(f"s3://flux/gallery/many/{job.id}.jpeg", "aws_default")
                results.append(download_and_store(hook.get_conn(), hook.wait(job, timeout=60), store).to_dict())
        return results

    @task
    def unrelated() -> str:
        """A task without images; the tests replace its result."""
        return "no image"

    many()
    unrelated()

with DAG("e2e_gallery_batch", schedule=None):
    FluxGenerateBatchOperator(
        task_id="batch",
        model="flux-dev",
        requests=["A pear", "nsfw", "A fig"],
        output_uri="s3://flux/gallery/batch/{{ run_id }}/",
        on_moderated="skip",
    )

with DAG("e2e_gallery_cut_off", schedule=None):
    FluxGenerateBatchOperator(
        task_id="batch",
        model="flux-dev",
        requests=[f"A pear, number {number}" for number in range(24)],
        output_uri="s3://flux/gallery/cut-off/{{ run_id }}/",
        execution_timeout=timedelta(seconds=12),
    )
