"""Daily content: retries that do not pay twice, and a notification if they fail.

The image is paid for once a day: a retry resumes the job that was submitted. An error that a retry cannot fix (a
moderated prompt, an account without credits) fails the task at once. From Airflow 3.3 on, a retry policy handles the
other errors by class.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from airflow.sdk import DAG, BaseNotifier, Param

from airflow_provider_flux.exceptions import FluxRateLimitError, FluxServiceError, FluxTimeoutError
from airflow_provider_flux.operators.flux import FluxGenerateOperator

try:
    from airflow.sdk import ExceptionRetryPolicy, RetryRule
except ImportError:  # before Airflow 3.3
    policy: dict[str, Any] = {}
else:
    policy = {
        "retry_policy": ExceptionRetryPolicy(
            rules=[
                RetryRule(FluxRateLimitError, retry_delay=timedelta(minutes=10), reason="The account has no capacity."),
                RetryRule(FluxServiceError, retry_delay=timedelta(minutes=2), reason="The FLUX API is failing."),
                RetryRule(FluxTimeoutError, retry_delay=timedelta(minutes=5), reason="The job is not ready yet."),
            ]
        )
    }


class NotifyTeam(BaseNotifier):
    """Stand-in for SmtpNotifier, SlackNotifier and others: logs the failure in the task's log."""

    template_fields = ("message",)

    def __init__(self, message: str) -> None:
        super().__init__()
        self.message = message

    def notify(self, context: Any) -> None:
        """Send the message with the error, which states what was billed and what to do."""
        self.log.error("%s: %s", self.message, context.get("exception"))


with DAG(
    dag_id="flux_daily_content",
    schedule="@daily",
    catchup=False,
    params={"bucket": Param("flux", type="string")},
    default_args={
        "retries": 3,
        "retry_delay": timedelta(minutes=1),
        "retry_exponential_backoff": True,
        "on_failure_callback": NotifyTeam("No image of {{ dag_run.run_after | ds }}: {{ ti.task_id }} has failed"),
        **policy,
    },
    tags=["flux"],
    doc_md=__doc__,
) as dag:
    FluxGenerateOperator(
        task_id="image_of_the_day",
        model="flux-pro-1.1",
        prompt="A breakfast table on {{ dag_run.run_after | ds }}, morning light",
        width=1024,
        height=768,
        output_uri="s3://{{ params.bucket }}/daily/{{ dag_run.run_after | ds }}.jpeg",
        reuse="always",
    )
