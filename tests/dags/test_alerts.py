"""The e-mail of docs/alerts.md says what happened and what was billed."""

from __future__ import annotations

import json
from email import message_from_bytes, policy
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from airflow_provider_flux.emulator import FluxEmulator
from tests.conftest import DAGS_FOLDER
from tests.dags.conftest import RunDag, load
from tests.servers.seaweed import SeaweedFS
from tests.snippets import SNIPPETS


class Mailbox:
    """Keeps what an SMTP server receives."""

    def __init__(self) -> None:
        self.messages: list[Any] = []

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:  # noqa: N802 - aiosmtpd's name
        self.messages.append(message_from_bytes(envelope.content, policy=policy.default))
        return "250 OK"


def test_failed_task_sends_the_error(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch, unused_port: int
) -> None:
    (snippet,) = [snippet for snippet in SNIPPETS if snippet.page == "docs/alerts.md" and "SmtpNotifier" in snippet.text]
    file = DAGS_FOLDER / "snippet_alert.py"
    file.write_text(snippet.text.replace("my-bucket", s3.bucket))
    flux_connection.fault(on="submit", http=401, json={"error": {"message": "no such key"}})
    mailbox = Mailbox()
    server = Controller(mailbox, hostname="127.0.0.1", port=unused_port)
    smtp = {
        "conn_type": "smtp",
        "host": "127.0.0.1",
        "port": unused_port,
        "extra": {"disable_ssl": True, "disable_tls": True},
    }
    monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(smtp))
    server.start()
    try:
        assert load(file).test().state == "failed"
    finally:
        server.stop()
    (mail,) = mailbox.messages
    assert mail["Subject"] == "No image: daily_banner.banner"
    text = mail.get_body().get_content()
    assert "The API refused the key (HTTP 401: no such key). Nothing was billed." in text
    assert "Check the API key in the Airflow connection." in text
