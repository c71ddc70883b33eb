"""The image of the day in a Slack channel; failed tasks post a message, too.

Slack loads the image from a presigned URL, which needs no login and ends after seven days, the maximum of S3. The URL
is made where it is used, since whatever a task returns is kept in Airflow's database. The message about a failure
quotes the error, which names the job and says what was billed.

Requires apache-airflow-providers-slack and the connections flux_default, aws_default and slack_default (Slack Incoming
Webhook).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.providers.slack.notifications.slack_webhook import SlackWebhookNotifier
from airflow.sdk import DAG, Param, task

from airflow_provider_flux.operators.flux import FluxGenerateOperator

# Without an exception, the worker was lost. A block has room for 3,000 characters.
ERROR = "{{ exception | default('The worker was lost; see the log.') | string | truncate(2900) }}"

with DAG(
    dag_id="flux_daily_hero_slack",
    schedule="@daily",
    catchup=False,
    params={"bucket": Param("flux", type="string")},
    default_args={
        "retries": 2,
        "on_failure_callback": SlackWebhookNotifier(
            text="{{ dag.dag_id }}: {{ ti.task_id }} has failed",
            blocks=[
                {"type": "header", "text": {"type": "plain_text", "text": "{{ ti.task_id }} has failed"}},
                {"type": "section", "text": {"type": "plain_text", "text": ERROR}},
            ],
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
    def post(image: dict[str, Any], *, dag_run: Any) -> None:
        """Post the image; as a task, not a callback, so that it is retried if Slack is down."""
        from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook

        from airflow_provider_flux.hooks.flux import FluxHook

        title = f"The image of {dag_run.run_after:%Y-%m-%d}"
        url = FluxHook().presigned_url(image, expires=timedelta(days=7))
        block = {"type": "image", "image_url": url, "alt_text": title}
        SlackWebhookHook(slack_webhook_conn_id="slack_default").send(text=title, blocks=[block])

    post(hero.output)
