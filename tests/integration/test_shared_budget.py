"""A budget over runs is never exceeded, whoever shares it and whatever fails: emulator, S3 server, real processes."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException
from airflow.sdk.io import attach
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.exceptions import (
    FluxBadRequestError,
    FluxBatchError,
    FluxBudgetError,
    FluxBudgetReachedError,
    FluxConfigurationError,
    FluxError,
    FluxStoreConfigurationError,
    FluxStoreError,
    FluxUncertainSubmitError,
)
from airflow_provider_flux.hooks.flux import FluxHook
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.spending import reservations, shared_budget
from airflow_provider_flux.spending.shared_budget import BudgetStatus
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
from tests.integration.running import run
from tests.integration.test_claims import Refusing, proxied
from tests.servers.seaweed import SeaweedFS

__all__ = ["proxied"]

RECIPE: dict[str, Any] = {"model": "flux-dev", "prompt": "a red kite", "width": 256, "height": 256}
PRICE = 2.5
PROCESS = """
import json, sys
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from tests.integration.running import run
kind, run_id, arguments = json.loads(sys.argv[1])
cls = {"batch": FluxGenerateBatchOperator, "image": FluxGenerateOperator}[kind]
run(cls(task_id="generate", **arguments), run_id=run_id)
"""


@pytest.fixture(params=["file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path, s3: SeaweedFS) -> str:
    return f"file://{tmp_path}" if request.param == "file" else f"s3://{s3.bucket}/budgets"


def budget(folder: str, limit: str, **more: Any) -> dict[str, Any]:
    return {"limit": limit, "uri": f"{folder}/ledgers/flux", **more}


def generate(folder: str, name: str = "hero", run_id: str = "run-1", **arguments: Any) -> dict[str, Any]:
    output_uri = f"{folder}/{name}.jpeg"
    return run(
        FluxGenerateOperator(task_id="generate", **{**RECIPE, "output_uri": output_uri, **arguments}), run_id=run_id
    )[0]


def status(shared: dict[str, Any]) -> BudgetStatus:
    (found,) = FluxHook(budget=shared).budget_status()
    return found


def start(kind: str, run_id: str, **arguments: Any) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-c", PROCESS, json.dumps([kind, run_id, arguments])]
    return subprocess.Popen(command, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_processes_exceed_a_budget(folder: str, flux_connection: FluxEmulator) -> None:
    flux_connection.settings(duration=0.2, max_active=100)
    shared = budget(folder, "22/month")
    processes = [
        start(
            "batch",
            f"run-{number}",
            model="flux-dev",
            requests=[f"kite {number}-{image}" for image in range(5)],
            parameters={"width": 256, "height": 256},
            output_uri=f"{folder}/{number}/",
            budget=shared,
            on_max_cost="stop",
        )
        for number in range(3)
    ]
    assert [process.wait(300) for process in processes] == [0, 0, 0]
    stats = flux_connection.stats()
    assert stats["submits"] == 8
    assert 10_000 - stats["credits"] == pytest.approx(8 * PRICE)
    found = status(shared)
    assert (found.spent, found.reserved, found.left) == (20, 0, 2)
    assert found.spent_by_model == {"flux-dev": 20}


def test_budget_forgets_the_submit_of_a_killed_process(folder: str, flux_connection: FluxEmulator) -> None:
    flux_connection.fault(on="submit", delay=60, accept=True)
    shared = budget(folder, "5/month")
    process = start("image", "run-1", **RECIPE, output_uri=f"{folder}/hero.jpeg", budget=shared)
    wait_until(lambda: flux_connection.stats()["submits"] == 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert status(shared).reserved == PRICE
    generate(folder, "other", budget=shared)
    with pytest.raises(FluxBudgetReachedError) as refused:
        generate(folder, "third", budget=shared)
    assert refused.value.retryable
    assert flux_connection.stats()["submits"] == 2


def test_retry_after_a_kill_reserves_twice(folder: str, flux_connection: FluxEmulator) -> None:
    flux_connection.settings(duration=600)
    shared = budget(folder, "3/month")
    arguments = {**RECIPE, "output_uri": f"{folder}/hero.jpeg", "budget": shared, "deferrable": False}
    process = start("image", "run-1", **arguments)
    receipt = Path(folder.removeprefix("file://")) / "hero.jpeg.json" if folder.startswith("file") else None
    wait_until(lambda: flux_connection.stats()["polls"] >= 1)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert receipt is None or json.loads(receipt.read_text())["job"]["reservation"]
    assert status(shared).reserved == PRICE
    flux_connection.fault(on="poll", status="Error", times=None)
    with pytest.raises(FluxError):
        generate(folder, **{name: value for name, value in arguments.items() if name != "output_uri"})
    assert flux_connection.stats()["submits"] == 1
    assert (status(shared).spent, status(shared).reserved) == (0, 0)


@pytest.mark.parametrize("how", [{"deferrable": False}, {"defer_after": 0}, {"output_uri": None}])
def test_cost_of_the_job_is_not_settled(tmp_path: Path, flux_connection: FluxEmulator, how: dict[str, Any]) -> None:
    flux_connection.settings(duration=0.5, settled_factor=0.8)
    shared = budget(f"file://{tmp_path}", "3/month")
    generate(f"file://{tmp_path}", budget=shared, **how)
    assert (status(shared).spent, status(shared).reserved) == (2, 0)


def test_job_that_another_task_waits_for_stays_reserved(
    flux_connection: FluxEmulator, s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch
) -> None:
    extra = {"budget": "$0.03/week", "budget_uri": f"s3://{s3.bucket}/ledgers/"}
    monkeypatch.setenv("AIRFLOW_CONN_FLUX_DEFAULT", json.dumps(flux_connection.connection(**extra)))
    job = generate("", output_uri=None, wait_for_completion=False)
    (before,) = FluxHook().budget_status()
    assert (before.spent, before.reserved) == (0, PRICE)
    run(FluxToS3Operator(task_id="upload", generation=job, s3_bucket=s3.bucket, s3_key="kite.jpeg"))
    (after,) = FluxHook().budget_status()
    assert (after.spent, after.reserved) == (PRICE, 0)
    assert after.ledger.startswith(f"s3://{s3.bucket}/ledgers/flux-budget-20")


@pytest.mark.parametrize(
    ("fault", "reserved"),
    [
        ({"http": 400}, 0),
        ({"http": 402}, 0),
        ({"http": 429, "times": None}, 0),
        ({"drop": True, "accept": True}, PRICE),
        ({"drop": True}, PRICE),
        ({"http": 500}, PRICE),
    ],
)
def test_reservation_after_a_failed_submit(
    tmp_path: Path,
    flux_connection: FluxEmulator,
    monkeypatch: pytest.MonkeyPatch,
    fault: dict[str, Any],
    reserved: float,
) -> None:
    flux_connection.fault(on="submit", **fault)
    shared = budget(f"file://{tmp_path}", "3/month")
    with pytest.raises(FluxError) as failed:
        FluxHook(budget=shared).submit("flux-dev", {"prompt": "x"}, wait_for_capacity=False)
    assert isinstance(failed.value, FluxUncertainSubmitError) == bool(reserved)
    assert status(shared).reserved == reserved


@pytest.mark.parametrize(("word", "spent"), [("Error", 0), ("Request Moderated", 0), ("Content Moderated", PRICE)])
@pytest.mark.parametrize("kind", ["batch", "image", "deferred"])
def test_job_without_an_image(
    tmp_path: Path, flux_connection: FluxEmulator, word: str, spent: float, kind: str
) -> None:
    flux_connection.settings(duration=0.1)
    flux_connection.fault(on="poll", status=word, times=None)
    shared = budget(f"file://{tmp_path}", "3/month")
    with pytest.raises(FluxError):
        if kind == "batch":
            batch(f"file://{tmp_path}", 1, budget=shared)
        else:
            more: dict[str, Any] = {"defer_after": 0} if kind == "deferred" else {}
            generate(f"file://{tmp_path}", budget=shared, **more)
    assert (status(shared).spent, status(shared).reserved) == (spent, 0)


def batch(folder: str, images: int, **arguments: Any) -> dict[str, Any]:
    operator = FluxGenerateBatchOperator(
        task_id="batch",
        model="flux-dev",
        requests=[f"kite {number}" for number in range(images)],
        parameters={"width": 256, "height": 256},
        output_uri=f"{folder}/batch/",
        **arguments,
    )
    return run(operator)[0]


def test_batch_stops_at_the_budget(tmp_path: Path, flux_connection: FluxEmulator) -> None:
    flux_connection.settings(duration=0.1)
    folder, shared = f"file://{tmp_path}", budget(f"file://{tmp_path}", "6/day")
    with pytest.raises(FluxBatchError, match="budget of 6 credits") as failed:
        batch(folder, 4, budget=shared)
    assert failed.value.retryable, "the own jobs were in flight"
    assert flux_connection.stats()["submits"] == 2
    with pytest.raises(FluxBatchError) as failed:
        batch(folder, 4, budget=shared)
    assert isinstance(failed.value, AirflowFailException)
    result = batch(folder, 4, budget=shared, on_max_cost="stop")
    assert (result["counts"]["stored"], result["counts"]["not_submitted"]) == (2, 2)
    assert flux_connection.stats()["submits"] == 2


def test_higher_price_than_published_is_learned(tmp_path: Path, flux_connection: FluxEmulator) -> None:
    flux_connection.settings(duration=0, settled_factor=2)
    folder, shared = f"file://{tmp_path}", budget(f"file://{tmp_path}", "9/month")
    generate(folder, "one", budget=shared)
    with pytest.raises(FluxBudgetReachedError, match=r"5 credits \(\$0.05\) would be reserved"):
        generate(folder, "two", budget=shared)
    assert status(shared).spent == 5


def test_period_that_has_ended_begins_again(
    tmp_path: Path, flux_connection: FluxEmulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    flux_connection.settings(duration=0)
    folder, shared = f"file://{tmp_path}", budget(f"file://{tmp_path}", "3/month")
    for now, month in ((1_793_000_000.0, "2026-10"), (1_793_600_000.0, "2026-11")):
        for module in (reservations, shared_budget):
            monkeypatch.setattr(module, "time", SimpleNamespace(time=lambda now=now: now))
        generate(folder, month, budget=shared)
        with pytest.raises(FluxBudgetReachedError) as refused:
            generate(folder, f"{month}-again", budget=shared)
        assert not refused.value.retryable
        found = status(shared)
        assert (found.period, found.spent) == (month, PRICE)
        assert f"The period {month} ends at {found.ends[:10]} 00:00 UTC; the ledger is {found.ledger}." in str(
            refused.value
        )
    assert flux_connection.stats()["submits"] == 2


def test_store_that_is_down_allows_no_submit(
    tmp_path: Path, flux_connection: FluxEmulator, s3: SeaweedFS, unused_port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, shared = f"file://{tmp_path}", budget(f"s3://{s3.bucket}", "3/month")
    generate(folder, budget=shared)
    connection = s3.connection()
    connection["extra"]["endpoint_url"] = f"http://127.0.0.1:{unused_port}"
    monkeypatch.setenv("AIRFLOW_CONN_AWS_DEFAULT", json.dumps(connection))
    with pytest.raises(FluxStoreError) as failed:
        generate(folder, "other", budget=shared)
    assert failed.value.retryable
    assert generate(folder, budget=shared)["reused"], "a stored image costs nothing"
    assert flux_connection.stats()["submit_requests"] == 1


class Careless(BaseHTTPRequestHandler):
    """An S3 server that ignores the conditions of writes, and in which nothing is found."""

    def _answer(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        is_missing = self.command == "GET" and "." in self.path
        content = b"<Error><Code>NoSuchKey</Code></Error>" if is_missing else b""
        self.send_response(404 if is_missing else 200)
        self.send_header("etag", '"0123456789abcdef0123456789abcdef"')
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_PUT = do_HEAD = _answer  # noqa: N815 - the names that http.server calls

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""


@pytest.fixture
def careless(s3: SeaweedFS, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    connection = s3.connection()
    with ThreadingHTTPServer(("127.0.0.1", 0), Careless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        connection["extra"]["endpoint_url"] = f"http://127.0.0.1:{server.server_address[1]}"
        monkeypatch.setenv("AIRFLOW_CONN_CARELESS", json.dumps(connection))
        yield
        server.shutdown()


@pytest.mark.usefixtures("careless")
@pytest.mark.parametrize("server", ["refuses", "ignores", "memory"])
def test_store_without_conditional_writes_is_refused(
    tmp_path: Path, flux_connection: FluxEmulator, proxied: type[Refusing], s3: SeaweedFS, server: str
) -> None:
    if server == "refuses":
        proxied.answers = (501, b"<Error><Code>NotImplemented</Code><Message>x</Message></Error>")
    attach("memory", fs=MemoryFileSystem())
    places = {"refuses": f"s3://{s3.bucket}", "ignores": f"s3://careless@{s3.bucket}", "memory": "memory://ledgers"}
    with pytest.raises(FluxStoreConfigurationError, match=r"two tasks could spend|several processes"):
        generate(f"file://{tmp_path}", budget=budget(places[server], "3/month"))
    assert flux_connection.stats()["submit_requests"] == 0


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": "x"}', "period", "negative"])
def test_corrupt_ledger_allows_no_submit(tmp_path: Path, flux_connection: FluxEmulator, content: str) -> None:
    folder, shared = f"file://{tmp_path}", budget(f"file://{tmp_path}", "30/month")
    generate(folder, budget=shared)
    path = Path(status(shared).ledger.removeprefix("file://"))
    ledger = json.loads(path.read_text())
    changes: dict[str, Any] = {"period": {"period": "2020-01"}, "negative": {"spent": {"flux-dev": -1.0}}}
    path.write_text(json.dumps({**ledger, **changes[content]}) if content in changes else content)
    with pytest.raises(FluxBudgetError, match="unknown what is spent") as failed:
        generate(folder, "other", budget=shared)
    assert isinstance(failed.value, AirflowFailException)
    assert flux_connection.stats()["submit_requests"] == 1


def test_unknown_price_is_refused(tmp_path: Path, flux_connection: FluxEmulator) -> None:
    folder, shared = f"file://{tmp_path}", budget(f"file://{tmp_path}", "30/month")
    with pytest.raises(FluxBudgetError, match="price of this request to flux-pro is unknown"):
        generate(folder, model="flux-pro", budget=shared)
    assert flux_connection.stats()["submit_requests"] == 0
    generate(folder, model="flux-pro", budget={**shared, "unknown_price": 9})
    assert flux_connection.stats()["submits"] == 1


def test_both_budgets_apply(tmp_path: Path, flux_connection: FluxEmulator, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = f"file://{tmp_path}"
    extra = {"budget": "6/month", "budget_uri": f"{folder}/all.json"}
    monkeypatch.setenv("AIRFLOW_CONN_FLUX_DEFAULT", json.dumps(flux_connection.connection(**extra)))
    with pytest.raises(FluxBudgetReachedError, match="2 credits"):
        generate(folder, budget="2/month")
    with pytest.raises(FluxBudgetReachedError, match="2 credits"):
        generate(folder, budget="2/day")
    assert FluxHook().budget_status()[0].reserved == 0, "the other budget has allowed it"
    generate(folder, budget=budget(folder, "9/month"))
    generate(folder, "two")
    with pytest.raises(FluxBudgetReachedError, match="6 credits"):
        generate(folder, "three", budget=budget(folder, "9/month"))
    spent = [found.spent for found in FluxHook(budget=budget(folder, "9/month")).budget_status()]
    assert spent == [5, 2.5], "the first budget's refusal has no trace in the second"
    assert flux_connection.stats()["submits"] == 2


@pytest.mark.parametrize(
    "given",
    [
        *("5000", 5000, "x/month", "-5/month", "5/year", "5,000/month", "nan/month", "$5", "$5 credits/day", "5/month"),
        {"uri": "s3://bucket/x"},
        {"limit": "5/month", "url": "s3://bucket/x"},
        {"limit": "5/month", "uri": "s3://bucket/x", "unknown_price": -1},
    ],
)
def test_invalid_budget_is_refused_before_money_is_spent(
    flux_connection: FluxEmulator, given: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FluxBadRequestError, match=r"budget|unknown_price"):
        generate("", output_uri=None, budget=given)
    monkeypatch.setenv("AIRFLOW_CONN_FLUX_DEFAULT", json.dumps(flux_connection.connection(budget=given)))
    with pytest.raises(FluxConfigurationError, match=r"budget|unknown_price"):
        generate("", output_uri=None)
    is_working, said = FluxHook().test_connection()
    assert not is_working
    assert "The connection's extra is invalid" in said
    assert flux_connection.stats()["submit_requests"] == 0


def test_warning_at_eighty_percent_is_logged_once(
    tmp_path: Path, flux_connection: FluxEmulator, caplog: pytest.LogCaptureFixture
) -> None:
    flux_connection.settings(duration=0)
    batch(f"file://{tmp_path}", 4, budget=budget(f"file://{tmp_path}", "10/month"))
    assert caplog.text.count("80 % of the budget of 10 credits") == 1
