"""The e-mail of docs/alerts.md says what happened and what was billed."""

from __future__ import annotations

import json

import pytest

from airflow_provider_flux.emulator import FluxEmulator
from tests.conftest import DAGS_FOLDER
from tests.dags.conftest import RunDag, load
from tests.servers.seaweed import SeaweedFS
from tests.servers.smtp import serve_mail
from tests.snippets import SNIPPETS


def test_failed_task_sends_the_error(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    (snippet,) = [
        snippet for snippet in SNIPPETS if snippet.page == "docs/alerts.md" and "SmtpNotifier" in snippet.text
    ]
    file = DAGS_FOLDER / "snippet_alert.py"
    file.write_text(snippet.text.replace("my-bucket", s3.bucket))
    flux_connection.fault(on="submit", http=401, json={"error": {"message": "no such key"}})
    with serve_mail() as server:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(server.connection()))
        assert load(file).test().state == "failed"
    (mail,) = server.mails
    assert mail["Subject"] == "No image: daily_banner.banner"
    body = mail.get_body()
    assert body is not None
    text = body.get_content()
    assert "The API refused the key (HTTP 401: no such key). Nothing was billed." in text
    assert "Check the API key in the Airflow connection." in text
