"""Many images with our operators."""

from __future__ import annotations

import contextlib

from airflow.sdk import DAG

from airflow_provider_flux.operators.flux import FluxGenerateOperator
from benchmarks.mapping import COUNT, prompts
from benchmarks.request import IMAGE, PLACE

with DAG("bench_mapped", schedule=None, params=COUNT):
    FluxGenerateOperator.partial(task_id="work", output_uri=PLACE, **IMAGE).expand(prompt=prompts())

with contextlib.suppress(ImportError):
    from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator

    with DAG("bench_batch", schedule=None, params=COUNT):
        FluxGenerateBatchOperator(
            task_id="work",
            requests=prompts(),
            output_uri=PLACE,
            model="flux-dev",
            parameters={"width": 256, "height": 256},
        )
