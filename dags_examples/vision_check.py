"""A vision model looks at each image; only one that passes is published.

An image that does not pass is generated again with another seed, up to twice; then the run fails, and says why. Each
image is billed.

Requires apache-airflow-providers-common-ai[openai] and the connections flux_default, aws_default and pydanticai_default
(of type ``pydanticai``), whose extra names a model that accepts images: ``{"model": "openai-chat:gpt-5-mini"}``.
"""

from __future__ import annotations

import logging
from typing import Any

from airflow.sdk import DAG, Param, task
from pydantic import BaseModel

from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator

ROUNDS = 3
RULES = "You check images before they are published. An image passes if it shows what was asked for, and no text."


class Verdict(BaseModel):
    """What the vision model answers."""

    passes: bool
    reason: str


with DAG(
    dag_id="flux_vision_check",
    schedule=None,
    params={
        "bucket": Param("flux", type="string"),
        "prompt": Param("A teapot on a wooden table, morning light", type="string"),
        "seed": Param(1, type="integer"),
    },
    tags=["flux"],
    doc_md=__doc__,
) as dag:

    @task.branch
    def check(image: dict[str, Any], if_not: str, *, params: dict[str, Any]) -> str:
        """Return the id of the next task: ``passed``, or what to do if the image does not pass."""
        from airflow.providers.common.ai.hooks.pydantic_ai import PydanticAIHook
        from pydantic_ai import BinaryContent

        from airflow_provider_flux.hooks.flux import FluxHook

        agent = PydanticAIHook("pydanticai_default").create_agent(Verdict, instructions=RULES)
        file = BinaryContent(FluxHook().read_image(image), media_type=image["content_type"])
        verdict = agent.run_sync([f"This was asked for: {params['prompt']}", file]).output
        logging.getLogger(__name__).info("%s: %s", image["uri"], verdict)
        return "passed" if verdict.passes else if_not

    @task(trigger_rule="none_failed_min_one_success")
    def passed(*, ti: Any) -> dict[str, Any]:
        """Return the image that passed, which is the last one generated."""
        images = [ti.xcom_pull(task_ids=f"generate_{n}") for n in range(1, ROUNDS + 1)]
        return [image for image in images if image][-1]

    @task
    def give_up() -> None:
        """Fail the run, so that its failure callbacks run."""
        raise RuntimeError(f"None of {ROUNDS} images passed; the log of each check has the reason.")

    image, given_up, before = passed(), give_up(), None
    for n in range(1, ROUNDS + 1):
        generate = FluxGenerateOperator(
            task_id=f"generate_{n}",
            model="flux-dev",
            prompt="{{ params.prompt }}",
            seed=f"{{{{ params.seed + {n - 1} }}}}",
            output_uri=f"s3://{{{{ params.bucket }}}}/vision-check/{{{{ run_id }}}}/{n}.jpeg",
        )
        checked = check.override(task_id=f"check_{n}")(
            generate.output, if_not=f"generate_{n + 1}" if n < ROUNDS else "give_up"
        )
        checked >> image
        if before:
            before >> generate
        before = checked
    before >> given_up
    FluxToS3Operator(task_id="publish", generation=image, s3_key="s3://{{ params.bucket }}/published/{{ run_id }}.jpeg")
