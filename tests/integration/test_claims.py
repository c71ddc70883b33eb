"""One recipe is paid for once, however many ask at once: real threads, real files, a real S3 server."""

from __future__ import annotations

import http.client
import json
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import FluxStoreConfigurationError
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.storage import open_store
from airflow_provider_flux.storage import s3 as s3_store
from airflow_provider_flux.storage.base import ImageStore, Sidecar, SidecarConflictError
from tests.integration.running import run
from tests.servers.seaweed import SeaweedFS

RECIPE: dict[str, Any] = {"model": "flux-dev", "prompt": "a red kite", "width": 256, "height": 256}
RUNS = [f"run-{number}" for number in range(4)]


@pytest.fixture(params=["file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, s3: SeaweedFS) -> str:
    return f"file://{tmp_path}" if request.param == "file" else f"s3://{s3.bucket}/claims"


def at_once(work: Callable[[str], Any]) -> list[Any]:
    """Do the work of several runs at the same moment."""
    start = threading.Barrier(len(RUNS))

    def one(run_id: str) -> Any:
        start.wait()
        return work(run_id)

    with ThreadPoolExecutor(len(RUNS)) as threads:
        return list(threads.map(one, RUNS))


def test_concurrent_runs_submit_one_job(
    folder: str, flux_connection: FluxEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    flux_connection.fault(on="submit", delay=1, times=None)

    def generate(run_id: str) -> dict[str, Any]:
        policies: dict[str, Any] = {"reuse": "always", "on_orphan": "fail", "deferrable": False}
        operator = FluxGenerateOperator(task_id="hero", output_uri=f"{folder}/hero.jpeg", **RECIPE, **policies)
        return run(operator, run_id=run_id)[0]

    images = at_once(generate)
    assert flux_connection.stats()["submits"] == 1
    assert len({(image["id"], image["sha256"]) for image in images}) == 1
    (payer,) = [image for image in images if image["cost"]]
    others = [image for image in images if image is not payer]
    assert "reused" not in payer
    assert [(image["reused"], image["cost"]) for image in others] == [(True, 0)] * 3
    (paid_by,) = {image["paid_by"]["run_id"] for image in others}
    assert images[RUNS.index(paid_by)] is payer
    assert "rphan" not in caplog.text


@pytest.mark.parametrize("defer_after", [5, 0])
def test_concurrent_runs_without_reuse_submit_one_job_each(
    folder: str, flux_connection: FluxEmulator, defer_after: float
) -> None:
    """The last one's stays; no job is taken for another run's."""
    flux_connection.settings(duration=1.5)

    def generate(run_id: str) -> dict[str, Any] | None:
        time.sleep(0.4 * RUNS.index(run_id))
        operator = FluxGenerateOperator(
            task_id="hero", output_uri=f"{folder}/hero.jpeg", defer_after=defer_after, **RECIPE
        )
        try:
            return run(operator, run_id=run_id)[0]
        except FluxStoreConfigurationError as error:
            assert "now. Two runs or tasks share this destination" in str(error)
            return None

    images = [image for image in at_once(generate) if image is not None]
    assert images
    assert flux_connection.stats()["submits"] == 4
    assert len({image["id"] for image in images}) == len(images)
    assert not [image for image in images if "reused" in image]


def test_run_that_waits_for_another_runs_job_has_no_cost(folder: str, flux_connection: FluxEmulator) -> None:
    flux_connection.settings(duration=1)

    def generate(run_id: str) -> dict[str, Any]:
        uri = f"{folder}/hero.jpeg"
        operator = FluxGenerateOperator(task_id="hero", output_uri=uri, defer_after=0, reuse="always", **RECIPE)
        return run(operator, run_id=run_id)[0]

    images = at_once(generate)
    assert flux_connection.stats()["submits"] == 1
    assert sorted(image["cost"] for image in images) == [0, 0, 0, 2.5]


def test_concurrent_batches_submit_each_job_once(folder: str, flux_connection: FluxEmulator) -> None:
    flux_connection.fault(on="submit", delay=0.3, times=None)

    def generate(run_id: str) -> dict[str, Any]:
        operator = FluxGenerateBatchOperator(
            task_id="batch",
            requests=[f"kite {number}" for number in range(10)],
            model="flux-dev",
            parameters={"width": 256, "height": 256},
            output_uri=f"{folder}/",
            reuse="always",
            on_orphan="fail",
            max_cost=1000,
        )
        return run(operator, run_id=run_id)[0]

    results = at_once(generate)
    stats = flux_connection.stats()
    assert stats["submits"] == 10
    assert [result["counts"]["stored"] for result in results] == [10] * 4
    assert sum(result["counts"]["reused"] for result in results) == 30
    assert sum(result["cost"] for result in results) == pytest.approx(10_000 - stats["credits"])


def test_one_of_many_writers_creates_and_one_replaces(folder: str) -> None:
    def write(replaces: Sidecar | None, turn: int) -> list[Sidecar]:
        def one(number: int) -> Sidecar | None:
            store = open_store(f"{folder}/kite.png", "aws_default")
            start.wait()
            try:
                return store.write_sidecar(json.dumps({"writer": number, "turn": turn}).encode(), replaces)
            except SidecarConflictError:
                return None

        start = threading.Barrier(8)
        with ThreadPoolExecutor(8) as threads:
            return [note for note in threads.map(one, range(8)) if note is not None]

    store = open_store(f"{folder}/kite.png", "aws_default")
    (created,) = write(None, 1)
    assert store.read_sidecar(100) == created
    (replaced,) = write(created, 2)
    assert store.read_sidecar(100) == replaced
    assert write(created, 3) == write(None, 4) == []


def test_deleted_sidecar_is_a_conflict(folder: str, s3: SeaweedFS, tmp_path: Path) -> None:
    store = open_store(f"{folder}/kite.png", "aws_default")
    note = store.write_sidecar(b"{}", None)
    if folder.startswith("s3"):
        s3.client().delete_object(Bucket=s3.bucket, Key="claims/kite.png.json")
    else:
        (tmp_path / "kite.png.json").unlink()
    with pytest.raises(SidecarConflictError):
        store.write_sidecar(b"{1}", note)
    assert store.read_sidecar(100) is None


class Refusing(BaseHTTPRequestHandler):
    """In front of an S3 server, one that does not know conditional writes; or loses the answer of the first write."""

    target = ""
    answers: tuple[int, bytes] | None = None
    loses = False

    def _forward(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", 0)))
        conditional = any(name in self.headers for name in ("If-None-Match", "If-Match"))
        if self.command == "PUT" and conditional and self.answers is not None:
            code, content = self.answers
            self.send_response(code)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        connection = http.client.HTTPConnection(self.target)
        connection.request(self.command, self.path, body, dict(self.headers))
        answer = connection.getresponse()
        content = answer.read()
        if self.command == "PUT" and type(self).loses:
            type(self).loses = False
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in ("transfer-encoding", "connection", "content-length"):
                self.send_header(name, value)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = do_POST = _forward  # noqa: N815 - the names that http.server calls

    def log_message(self, *arguments: Any) -> None:
        """Say nothing."""


@pytest.fixture
def proxied(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Refusing]]:
    connection = s3.connection()
    handler = type("Handler", (Refusing,), {"target": urlsplit(connection["extra"]["endpoint_url"]).netloc})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection["extra"]["endpoint_url"] = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
        yield handler
        server.shutdown()


@pytest.mark.parametrize(("code", "name"), [(501, "NotImplemented"), (400, "InvalidArgument")])
def test_missing_conditional_writes_are_warned_about_once(
    proxied: type[Refusing],
    s3: SeaweedFS,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    code: int,
    name: str,
) -> None:
    monkeypatch.setattr(s3_store, "_unconditional", set())
    proxied.answers = (code, f"<Error><Code>{name}</Code><Message>If-Match</Message></Error>".encode())
    store: ImageStore = open_store(f"s3://{s3.bucket}/kite.png", "aws_default")
    note = store.write_sidecar(b"{1}", None)
    assert store.write_sidecar(b"{2}", note) == store.read_sidecar(100)
    with pytest.raises(SidecarConflictError):
        store.write_sidecar(b"{3}", note)
    assert caplog.text.count("does not support conditional writes") == 1


def test_temporary_error_keeps_writes_conditional(
    proxied: type[Refusing], s3: SeaweedFS, caplog: pytest.LogCaptureFixture
) -> None:
    proxied.answers = (400, b"<Error><Code>RequestTimeout</Code><Message>x</Message></Error>")
    with pytest.raises(Exception, match="RequestTimeout"):
        open_store(f"s3://{s3.bucket}/kite.png", "aws_default").write_sidecar(b"{1}", None)
    assert "does not support" not in caplog.text


@pytest.mark.parametrize("code", [409, 412])
def test_conflict_keeps_writes_conditional(
    proxied: type[Refusing], s3: SeaweedFS, caplog: pytest.LogCaptureFixture, code: int
) -> None:
    proxied.answers = (code, b"<Error><Code>ConditionalRequestConflict</Code><Message>x</Message></Error>")
    with pytest.raises(SidecarConflictError):
        open_store(f"s3://{s3.bucket}/kite.png", "aws_default").write_sidecar(b"{1}", None)
    assert "does not support" not in caplog.text


def test_write_without_response_is_recognised(proxied: type[Refusing], s3: SeaweedFS) -> None:
    """The S3 client sends it again, and meets what it has written itself."""
    proxied.loses = True
    store = open_store(f"s3://{s3.bucket}/kite.png", "aws_default")
    assert store.write_sidecar(b"{1}", None) == store.read_sidecar(100)
    assert not proxied.loses
