"""A DAG for the tests of costs: an image that is paid for once, and one that is lost."""

from __future__ import annotations

from typing import Any

from airflow.sdk import DAG

from airflow_provider_flux.operators.flux import FluxGenerateOperator

with DAG("e2e_costs", schedule=None):
    given: Any = {"model": "flux-dev", "prompt": "a pear", "output_uri": "s3://flux/costs/pear.jpeg", "reuse": "always"}
    first = FluxGenerateOperator(task_id="first", **given)
    again = FluxGenerateOperator(task_id="again", **given)
    lost = FluxGenerateOperator(
        task_id="lost",
        model="flux-pro-1.1",
        prompt="a pear that nobody gets",
        output_uri="s3://flux/costs/{{ run_id }}/lost.jpeg",
    )
    first >> again
