"""One master image in all banner and social formats: each is the master, extended to another shape.

Outpainting keeps the pixels of the master and draws what is around it. With ``reuse="always"``, a run pays only for
the formats that are new, or all of them if the master has changed.
"""

from __future__ import annotations

from airflow.sdk import DAG, Param

from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator

FORMATS = {
    "link-preview": (1200, 628),
    "square-post": (1080, 1080),
    "portrait-post": (1080, 1350),
    "story": (1080, 1920),
    "video-cover": (1280, 720),
    "wide-banner": (1600, 400),
    "profile-header": (1500, 500),
}
"""File name of each format -> its width and height in pixels."""

with DAG(
    dag_id="flux_social_formats",
    schedule=None,
    params={"bucket": Param("flux", type="string")},
    render_template_as_native_obj=True,
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    # Not larger than the smallest format, so that each one contains the whole master.
    master = FluxGenerateOperator(
        task_id="master",
        model="flux-2-pro",
        prompt="A red kite above a green hill, the sky around it empty",
        width=384,
        height=384,
        seed=2026,
        output_uri="s3://{{ params.bucket }}/campaign/master.jpeg",
        reuse="always",
    )

    FluxGenerateBatchOperator(
        task_id="formats",
        model="flux-tools/outpainting-v1",
        requests=[{"file_name": name, "width": width, "height": height} for name, (width, height) in FORMATS.items()],
        parameters={"input_image": master.output, "prompt": "The same hill and sky, continued"},
        output_uri="s3://{{ params.bucket }}/campaign/",
        reuse="always",
        max_cost=100,
    )
