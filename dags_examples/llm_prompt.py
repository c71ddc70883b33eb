"""A language model writes the prompt, FLUX generates the image.

What the model writes reaches FLUX as it is: text from XCom is never rendered as a template, so that braces in it do
nothing. Only the prompt of the first task is a template, of this file.

Requires apache-airflow-providers-common-ai[openai] and the connections flux_default, aws_default and pydanticai_default
(of type ``pydanticai``), whose extra names the model: ``{"model": "openai-chat:gpt-5-mini"}``.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators.flux import FluxGenerateOperator

with DAG(
    dag_id="flux_llm_prompt",
    schedule=None,
    params={
        "bucket": Param("flux", type="string"),
        "theme": Param("autumn in a tea shop", type="string"),
    },
    tags=["flux"],
    doc_md=__doc__,
) as dag:

    @task.llm(
        llm_conn_id="pydanticai_default",
        system_prompt="You write prompts for an image model. Answer with one prompt, of at most 60 words.",
    )
    def write_prompt() -> str:
        """Return what to ask the language model; its answer is the result of the task."""
        return "The theme: {{ params.theme }}"

    FluxGenerateOperator(
        task_id="generate",
        model="flux-2-pro",
        prompt=write_prompt(),
        width=1024,
        height=768,
        output_uri="s3://{{ params.bucket }}/llm/{{ run_id }}.jpeg",
    )
