"""The image of the day by mail, inline, so that it shows without a login; failed tasks send a mail, too.

The mail about a failure quotes the error, which names the job and says what was billed.

Requires apache-airflow-providers-smtp and the connections flux_default, aws_default and smtp_default, whose extra has
the ``from_email``.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from airflow.providers.smtp.notifications.smtp import SmtpNotifier
from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators.flux import FluxGenerateOperator

with DAG(
    dag_id="flux_daily_hero_mail",
    schedule="@daily",
    catchup=False,
    params={
        "bucket": Param("flux", type="string"),
        "to": Param("team@example.com", type="string", format="email"),
    },
    default_args={
        "retries": 2,
        "on_failure_callback": SmtpNotifier(
            to="{{ params.to }}",
            subject="{{ dag.dag_id }}: {{ ti.task_id }} has failed",
            # Without an exception, the worker was lost.
            html_content="<pre>{{ exception | default('The worker was lost; see the log.') | e }}</pre>",
        ),
    },
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    hero = FluxGenerateOperator(
        task_id="hero",
        model="flux-pro-1.1",
        prompt="A breakfast table on {{ dag_run.run_after | ds }}, morning light",
        width=1024,
        height=768,
        output_uri="s3://{{ params.bucket }}/hero/{{ dag_run.run_after | ds }}.jpeg",
        reuse="always",
    )

    @task
    def mail(image: dict[str, Any], *, params: dict[str, Any], dag_run: Any) -> None:
        """Send the image; as a task, not a callback, so that it is retried if the mail server is down."""
        from airflow.providers.smtp.hooks.smtp import SmtpHook

        from airflow_provider_flux.hooks.flux import FluxHook

        with tempfile.TemporaryDirectory() as folder, SmtpHook() as smtp:
            file = Path(folder) / "hero.jpeg"
            file.write_bytes(FluxHook().read_image(image))
            smtp.send_email_smtp(
                to=params["to"],
                subject=f"The image of {dag_run.run_after:%Y-%m-%d}",
                html_content='<img src="cid:hero.jpeg" alt="The image of the day" width="640">',
                files=[str(file)],  # the hook makes a file's name its Content-ID
                mime_subtype="related",
            )

    mail(hero.output)
