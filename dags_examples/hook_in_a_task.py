"""The hook in a plain ``@task``, for what the operators do not cover."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.sdk import DAG, task

with DAG(dag_id="flux_hook_in_a_task", schedule=None, tags=["flux"], doc_md=__doc__) as dag:

    @task
    def thumbnail() -> dict[str, Any]:
        """Generate an image and make a thumbnail of it."""
        import tempfile

        from PIL import Image

        from airflow_provider_flux.hooks.flux import FluxHook

        hook = FluxHook("flux_default")
        job = hook.submit("flux-dev", {"prompt": "A quiet harbour, ink drawing", "width": 512, "height": 512})
        result = hook.wait(job, timeout=300)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "harbour.jpeg"
            found = hook.download(result, path)
            with Image.open(path) as image:
                image.thumbnail((128, 128))
                return {"id": job.id, "seed": result.seed, "sha256": found.sha256, "thumbnail": list(image.size)}

    thumbnail()
