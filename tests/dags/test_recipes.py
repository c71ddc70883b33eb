"""The recipes run from start to end: mail, Slack and a CSV file."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from typing import Any

import airflow
import pytest
from airflow.providers.slack.hooks.slack_webhook import SlackWebhookHook
from packaging.version import Version

from airflow_provider_flux.emulator import FluxEmulator
from tests.conftest import DAGS_FOLDER
from tests.dags.conftest import RunDag, load, run_to_failure, stored
from tests.servers.seaweed import SeaweedFS
from tests.servers.slack import Header, ImageBlock, Section, SlackWebhook
from tests.servers.smtp import MailServer, serve_mail
from tests.servers.web_app import serve

# dag.test() of Airflow 3.1 calls no callback.
NOTIFICATIONS = 1 if Version(airflow.__version__) >= Version("3.3") else 0


@pytest.fixture
def mail(monkeypatch: pytest.MonkeyPatch) -> Iterator[MailServer]:
    with serve_mail() as server:
        monkeypatch.setenv("AIRFLOW_CONN_SMTP_DEFAULT", json.dumps(server.connection()))
        yield server


@pytest.fixture
def slack(monkeypatch: pytest.MonkeyPatch) -> Iterator[SlackWebhook]:
    webhook = SlackWebhook()
    with serve(webhook.app) as url:
        monkeypatch.setenv("AIRFLOW_CONN_SLACK_DEFAULT", json.dumps(webhook.connection(url)))
        yield webhook


def test_mail_shows_the_image_inline(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, mail: MailServer
) -> None:
    (image,) = run_dag(DAGS_FOLDER / "daily_hero_mail.py")["hero"]
    (sent,) = mail.mails
    assert sent.get_content_type() == "multipart/related"
    body, attached = sent.iter_parts()
    assert f'src="cid:{attached["Content-ID"].strip("<>")}"' in body.get_content()
    assert attached.get_content() == stored(s3, image)


def test_mail_of_a_failure_names_the_job_and_what_was_billed(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, mail: MailServer
) -> None:
    flux_connection.fault(on="poll", status="Request Moderated", times=None)
    run_to_failure(DAGS_FOLDER / "daily_hero_mail.py")
    (job,) = flux_connection.stats()["jobs"]
    assert len(mail.mails) == NOTIFICATIONS
    for sent in mail.mails:
        (body,) = sent.iter_parts()
        assert sent["Subject"] == "flux_daily_hero_mail: hero has failed"
        assert job["id"] in body.get_content()
        assert "does not bill refused requests" in body.get_content()


def test_slack_shows_the_image_to_people_without_a_login(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, slack: SlackWebhook
) -> None:
    (image,) = run_dag(DAGS_FOLDER / "daily_hero_slack.py")["hero"]
    (message,) = slack.messages
    (block,) = message.blocks
    assert isinstance(block, ImageBlock)
    assert slack.images == [stored(s3, image)]
    assert message.text == block.alt_text != ""


def test_slack_message_of_a_failure_names_the_job_and_what_was_billed(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, slack: SlackWebhook
) -> None:
    flux_connection.fault(on="poll", status="Request Moderated", times=None)
    run_to_failure(DAGS_FOLDER / "daily_hero_slack.py")
    (job,) = flux_connection.stats()["jobs"]
    assert len(slack.messages) == NOTIFICATIONS
    for message in slack.messages:
        header, error = message.blocks
        assert isinstance(header, Header)
        assert isinstance(error, Section)
        assert job["id"] in error.text.text
        assert "does not bill refused requests" in error.text.text


@pytest.mark.parametrize(
    ("context", "says"),
    [
        ({}, "The worker was lost; see the log."),
        ({"exception": ValueError("width is <1>")}, "width is <1>"),
        ({"exception": ValueError("many faults, " * 400)}, "many faults, many faults, "),
    ],
    ids=["lost worker", "markup", "long"],
)
def test_notifications_state_any_error(mail: MailServer, slack: SlackWebhook, context: Any, says: str) -> None:
    for name in ("daily_hero_mail", "daily_hero_slack"):
        dag = load(DAGS_FOLDER / f"{name}.py")
        task: Any = dag.get_task("hero")
        (notify,) = task.on_failure_callback
        notify({"dag": dag, "ti": task, "params": {"to": "team@example.com"}, **context})
    (body,) = mail.mails[0].iter_parts()
    block = slack.messages[0].blocks[1]
    assert isinstance(block, Section)
    assert says in html.unescape(body.get_content())
    assert "<1>" not in body.get_content()
    assert block.text.text.startswith(says)


def test_slack_double_refuses_an_image_that_nobody_can_load(slack: SlackWebhook, unused_port: int) -> None:
    image = {"type": "image", "alt_text": "A pear", "image_url": f"http://127.0.0.1:{unused_port}/pear.jpeg"}
    with pytest.raises(Exception, match="invalid_blocks"):
        SlackWebhookHook(slack_webhook_conn_id="slack_default").send(text="A pear", blocks=[image])
    assert slack.messages == []


def test_csv_products_stop_at_the_maximum_cost_and_continue(
    run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS
) -> None:
    lines = ["sku,name,description", *(f'SKU-{n:03},Teapot {n},"stoneware, glazed"' for n in range(50))]
    file = "\ufeff" + "\r\n".join(lines)
    s3.client().put_object(Bucket=s3.bucket, Key="products.csv", Body=file.encode())
    (first,) = run_dag(DAGS_FOLDER / "csv_products.py")["images"]
    (second,) = run_dag(DAGS_FOLDER / "csv_products.py")["images"]
    assert (first["counts"]["stored"], first["counts"]["not_submitted"], first["cost"]) == (40, 10, 100)
    assert (second["counts"]["stored"], second["counts"]["reused"], second["cost"]) == (50, 40, 25)
    assert {job["prompt"] for job in flux_connection.stats()["jobs"]} == {
        f"Teapot {n}: stoneware, glazed, on white, studio light" for n in range(50)
    }
    found = s3.client().list_objects_v2(Bucket=s3.bucket, Prefix="products/")["Contents"]
    assert {f"products/SKU-{n:03}.jpeg" for n in range(50)} <= {item["Key"] for item in found}
