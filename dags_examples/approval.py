"""A person approves an image before it is published; a rejected image is generated again, up to twice, with a new seed.

The request shows a thumbnail, which the gallery serves to users with read access to this DAG, and links to the image.
Pending requests are in Airflow's UI under "Required Actions".
"""

from __future__ import annotations

from typing import Any

from airflow.providers.standard.operators.hitl import HITLBranchOperator
from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators.flux import FluxGenerateOperator

ROUNDS = 3
BODY = """{%% set image = ti.xcom_pull(task_ids="generate_%d") %%}
{{ params.prompt }}

[![The image]({{ macros.flux.image_url(image, thumbnail=True, relative=True) }})]\
({{ macros.flux.image_url(image, relative=True) }})

{{ image.width }} x {{ image.height }}, seed {{ image.seed }}, {{ image.cost }} credits"""

with DAG(
    dag_id="flux_approval",
    schedule=None,
    params={
        "bucket": Param("flux", type="string"),
        "prompt": Param("A shop window at dusk, gouache", type="string"),
        "seed": Param(1, type="integer"),
    },
    tags=["flux"],
    doc_md=__doc__,
) as dag:

    @task(trigger_rule="none_failed_min_one_success")
    def publish(*, ti: Any) -> str:
        """Stand-in for publishing: return the URI of the approved image, which is the last one generated."""
        made = [ti.xcom_pull(task_ids=f"generate_{n}") for n in range(1, ROUNDS + 1)]
        return [image for image in made if image][-1]["uri"]

    @task
    def give_up() -> None:
        """Fail the run, so that its failure callbacks run."""
        raise RuntimeError(f"None of {ROUNDS} images was approved.")

    published, given_up, before = publish(), give_up(), None
    for n in range(1, ROUNDS + 1):
        generate = FluxGenerateOperator(
            task_id=f"generate_{n}",
            model="flux-dev",
            prompt="{{ params.prompt }}",
            seed=f"{{{{ params.seed + {n - 1} }}}}",
            output_uri=f"s3://{{{{ params.bucket }}}}/approval/{{{{ run_id }}}}/{n}.jpeg",
        )
        approve = HITLBranchOperator(
            task_id=f"approve_{n}",
            subject=f"Shall this image be published? ({n} of {ROUNDS})",
            body=BODY % n,
            options=["Approve", "Reject"],
            options_mapping={"Approve": "publish", "Reject": f"generate_{n + 1}" if n < ROUNDS else "give_up"},
        )
        generate >> approve >> published
        if before:
            before >> generate
        before = approve
    before >> given_up
