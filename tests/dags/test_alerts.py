"""The e-mail of docs/alerts.md says what happened and what was billed, or that the worker was lost."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_flux.exceptions import FluxAuthenticationError
from tests.conftest import DAGS_FOLDER
from tests.dags.conftest import load
from tests.servers.smtp import serve_mail
from tests.snippets import SNIPPETS


@pytest.mark.parametrize(
    ("context", "says"),
    [
        (
            {"exception": FluxAuthenticationError("The key is <wrong>.")},
            "The key is &lt;wrong&gt;. Nothing was billed.",
        ),
        ({}, "The worker was lost."),
    ],
    ids=["error", "lost worker"],
)
def test_mail_says_what_happened(monkeypatch: pytest.MonkeyPatch, context: dict[str, Any], says: str) -> None:
    (snippet,) = [
        snippet for snippet in SNIPPETS if snippet.page == "docs/alerts.md" and "SmtpNotifier" in snippet.text
    ]
    file = DAGS_FOLDER / "snippet_alert.py"
    file.write_text(snippet.text)
    dag = load(file)
    task: Any = dag.get_task("banner")
    (notify,) = task.on_failure_callback
    ti = SimpleNamespace(task_id="banner", log_url="https://airflow.example.com/log")
    with serve_mail() as server:
        connection = server.connection()
        connection["extra"]["retry_limit"] = 1  # the older SMTP provider takes 0 for "never"
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(connection))
        notify({"dag": dag, "ti": ti, **context})
    (mail,) = server.mails
    text = "".join(part.get_content() for part in mail.walk() if part.get_content_maintype() == "text")
    assert mail["Subject"] == "No image: daily_banner.banner"
    assert says in text
    assert "https://airflow.example.com/log" in text
