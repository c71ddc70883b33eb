"""One image with our operator; a file of its own, since a task pays for all that its file imports."""

from __future__ import annotations

from airflow.sdk import DAG

from airflow_provider_flux.operators.flux import FluxGenerateOperator
from benchmarks.request import IMAGE, PLACE

with DAG("bench_one", schedule=None):
    FluxGenerateOperator(task_id="work", prompt="a kite", output_uri=PLACE, **IMAGE)
