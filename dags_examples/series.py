"""A series of matching images: one seed, one style, several subjects.

With ``reuse="always"``, the next run reuses an image whose recipe has not changed, and is not billed for it.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_flux.operators.flux import FluxGenerateOperator

STYLE = "flat vector illustration, two colours, white background"

with DAG(
    dag_id="flux_series",
    schedule=None,
    params={"bucket": Param("flux", type="string")},
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    FluxGenerateOperator.partial(
        task_id="illustrate",
        model="flux-2-pro",
        parameters={"safety_tolerance": 2},
        width=768,
        height=512,
        seed=2026,
        reuse="always",
        map_index_template="{{ task.prompt.partition(',')[0] }}",
    ).expand_kwargs(
        [
            {
                "prompt": f"{subject}, {STYLE}",
                "output_uri": f"s3://{{{{ params.bucket }}}}/series/{subject.replace(' ', '-')}.jpeg",
            }
            for subject in ("a lighthouse", "a sailing boat", "a gull")
        ]
    )
