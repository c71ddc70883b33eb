"""The gallery's data on Airflow's database: the index of images, its totals, failures, and other XCom backends."""

from __future__ import annotations

import asyncio
import hashlib
import json
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.models.xcom import XComModel
from airflow.sdk.bases.xcom import BaseXCom
from airflow.utils.db import initdb
from airflow.utils.session import create_session
from fastapi import HTTPException
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from airflow_provider_flux.client.jobs import Job
from airflow_provider_flux.failures import FAILURE_KEY
from airflow_provider_flux.gallery import backends, contents, index, index_file, indexing, queries, reading
from airflow_provider_flux.gallery.index import ImageFilter, search
from airflow_provider_flux.gallery.indexing import Background, Indexer, update_receipts
from airflow_provider_flux.gallery.queries import Selection
from airflow_provider_flux.gallery.search import require_complete_index
from airflow_provider_flux.receipts.receipt import Receipt
from tests.airflow_data import BEGIN, add_run, add_task, delete_run, set_run_state

DAGS = ("index_a", "index_b")
STORED = {"model": "flux-dev", "status": "Ready", "sha256": "a" * 64, "cost": 2.5}
MANIFEST = b'{"index": 0, "id": "j", "model": "flux-dev", "state": "stored"}\n'
RUNS: list[int] = []
"""The runs of the test that is running."""
FAILURE: dict[str, Any] = {
    "state": "failed",
    "error": "FluxTimeoutError",
    "message": "Job f was late.",
    "billing": "Billed.",
    "retry": "A retry resumes.",
    "job_id": "f",
    "model": "flux-dev",
    "uri": None,
    "cost": 3,
}


def image(name: str, **fields: Any) -> dict[str, Any]:
    return {"return_value": {**STORED, "id": name, "uri": f"file:///none/{name}.png", **fields}}


@pytest.fixture(scope="module", autouse=True)
def _database() -> None:
    """Prepare the database, without what DAGs of other tests in this process left."""
    initdb()
    with create_session() as session:
        session.execute(delete(XComModel))


@pytest.fixture(autouse=True)
def _index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give each test an index and runs of its own, which are up to date in every search."""
    monkeypatch.setattr(index_file, "cache_folder", lambda: tmp_path)
    monkeypatch.setattr(indexing, "refresh", lambda budget=0: indexing.Progress(0, 0))
    yield
    while RUNS:
        delete_run(RUNS.pop())


def new_run(dag_id: str = "index_a", run_id: str = "run", state: str = "success") -> int:
    RUNS.append(add_run(dag_id, run_id, state=state))
    return RUNS[-1]


def found(**which: Any) -> list[str]:
    Indexer().update_runs(is_full=True)
    return [str(each.image.job_id) for each in search(DAGS, ImageFilter(**which), 100).images]


def test_the_newest_run_comes_first_and_its_images_in_their_order() -> None:
    for number in range(3):
        add_task(new_run(run_id=f"r{number}"), "t", image(f"j{number}"), at=BEGIN + timedelta(hours=number))
    add_task(RUNS[1], "t", image("j1-b"), map_index=3, at=BEGIN + timedelta(minutes=90))
    assert found() == ["j2", "j1", "j1-b", "j0"]
    page = search(DAGS, ImageFilter(), limit=2, offset=1)
    assert ([each.image.job_id for each in page.images], page.total) == (["j1", "j1-b"], 4)


def test_filters_select_by_each_attribute() -> None:
    add_task(new_run(), "t", image("a", prompt="A red PEAR, on a table", submitted_at="2026-02-01T12:00:00Z"))
    add_task(new_run("index_b"), "t", image("b", model="flux-pro", submitted_at="2026-02-02T00:00:00Z"))
    assert found(dag_id="index_b") == found(model="flux-pro") == ["b"]
    assert found(text="pear  red") == ["a"]
    assert found(text="100%") == found(state="failed") == []
    assert found(since=datetime(2026, 2, 2, tzinfo=UTC)) == found(since=datetime(2026, 2, 1, 12, 1)) == ["b"]
    assert found(until=datetime(2026, 2, 2, tzinfo=UTC)) == found(until=datetime(2026, 2, 1, 12, 1)) == ["a"]
    assert index.models(DAGS) == ["flux-dev", "flux-pro"]
    assert search(["index_b"], ImageFilter(dag_id="index_a"), 10).total == 0
    assert search([], ImageFilter(), 10).totals == index.Totals()


def test_totals_keep_reused_and_lost_images_apart() -> None:
    run = new_run()
    add_task(run, "paid", image("paid"))
    add_task(run, "reused", image("other", reused=True, cost=0))
    add_task(run, "again", image("again", reused=True))
    add_task(run, "failed", {FAILURE_KEY: FAILURE}, state="failed")
    add_task(run, "unknown", image("unknown", cost=None))
    add_task(new_run("index_b"), "t", image("other", cost=4))
    found()
    totals = search(DAGS, ImageFilter(dag_id="index_a"), 10).totals
    assert (totals.images, totals.stored, totals.failed, totals.unknown_costs) == (5, 4, 1, 1)
    assert (totals.cost, totals.cost_usd) == (8, 0.08)
    assert (totals.reused, totals.reused_cost, totals.lost, totals.lost_cost) == (1, 4, 1, 3)
    (row,) = index.aggregate(DAGS, ImageFilter(dag_id="index_a"), by=["dag"])
    assert (row.key, row.totals) == ({"dag": "index_a"}, totals)


def test_a_failure_is_shown_with_its_reason_until_the_task_succeeds() -> None:
    run = new_run(state="running")
    add_task(run, "t", {FAILURE_KEY: {**FAILURE, "state": "moderated"}}, state="failed")
    assert found(state="moderated") == ["f"]
    found_now = asyncio.run(contents.load(Selection("index_a", "run")))
    (missing,) = found_now.images
    assert (missing.problem, missing.billing, missing.retry) == ("Job f was late.", "Billed.", "A retry resumes.")
    (note,) = found_now.notes
    assert (note.text, note.failure) == ("t failed. See its log.", missing)
    add_task(run, "t", {FAILURE_KEY: FAILURE}, state="success", at=BEGIN + timedelta(minutes=1))
    assert found() == []


def test_prompts_come_from_receipts_and_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "j.png"
    receipt = Receipt("submitted", "f", "flux-dev", {"prompt": "A fig"}, job=Job("j", "flux-dev", cost=2))
    path.with_name("j.png.json").write_text(receipt.to_json())
    run = new_run()
    add_task(run, "t", image("j", uri=path.as_uri(), cost=0, reused=True))
    found()
    update_receipts()
    path.with_name("j.png.json").unlink()
    set_run_state(run, "failed")
    assert found(text="FIG") == ["j"]
    page = search(DAGS, ImageFilter(), 10)
    assert (page.images[0].prompt, page.totals.reused_cost) == ("A fig", 2)


@pytest.fixture
def batch(tmp_path: Path) -> Path:
    """Add a run with a batch, and return where its manifest is."""
    path = tmp_path / "manifest.jsonl"
    path.write_bytes(MANIFEST)
    result = {"manifest": path.as_uri(), "manifest_sha256": hashlib.sha256(MANIFEST).hexdigest(), "counts": {}}
    add_task(new_run(), "batch", {"return_value": result})
    reading._cached_manifest.cache_clear()
    return path


def test_a_run_that_could_not_be_read_is_read_again(batch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    batch.unlink()
    assert found() == []
    batch.write_bytes(MANIFEST)
    assert found() == []  # It may be gone for good, so not every pass reads it.
    later = time.time() + indexing._RETRY_SECONDS + 60
    monkeypatch.setattr(time, "time", lambda: later)
    assert found() == ["j"]


def test_a_file_that_would_be_incomplete_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    require_complete_index()
    monkeypatch.setattr(indexing, "refresh", lambda budget: indexing.Progress(1, 3))
    with pytest.raises(HTTPException, match="1 of 3 runs"):
        require_complete_index()


def test_a_process_that_ends_leaves_the_rest_to_the_next(
    batch: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    run = new_run(run_id="with_receipt")
    add_task(run, "t", image("k", uri=batch.with_name("k.png").as_uri(), cost=0, reused=True))
    with monkeypatch.context() as ending:
        ending.setattr(reading, "_pool", ThreadPoolExecutor())
        reading._pool.shutdown()
        for function in (lambda: Indexer().update_runs(is_full=True), update_receipts):
            Background()._run(function)
        ending.setattr(indexing, "_process_ends", threading.Event())
        indexing._process_ends.set()
        ending.setattr(queries, "run_versions", lambda *_: 1 / 0)  # such as a database that is closed
        Background()._run(lambda: Indexer().update_runs(is_full=True))
    assert caplog.messages == []
    assert sorted(found()) == ["j", "k"]


def test_the_page_of_a_group_has_its_tasks_only() -> None:
    run = new_run()
    for task_id in ("g.t", "g.inner.t", "gxt", "h_.t", "hx.t"):
        add_task(run, task_id, image(task_id), map_index=1)
    shown = {
        group: [each.job_id for each in asyncio.run(contents.load(Selection("index_a", "run", group_id=group))).images]
        for group in ("g", "h_")
    }
    assert shown == {"g": ["g.inner.t", "g.t"], "h_": ["h_.t"]}
    assert not asyncio.run(contents.load(Selection("index_a", "run", group_id="g", map_index=0))).statuses


@pytest.mark.parametrize("damage", [b"", b"not a database" * 100, None], ids=["empty", "text", "version"])
def test_a_damaged_or_older_index_is_made_again(damage: bytes | None) -> None:
    add_task(new_run(), "t", image("j"))
    assert found() == ["j"]
    path = index_file.file_path()
    if damage is None:
        with sqlite3.connect(path) as connection:
            connection.execute("pragma user_version = 99")
        connection.close()
    else:
        for suffix in ("-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)
        path.write_bytes(damage)
    assert found() == ["j"]


def test_a_request_waits_for_the_index_only_briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        add_task(new_run(run_id=f"r{number}"), "t", image(f"j{number}"), at=BEGIN + timedelta(hours=number))
    load = contents.load

    async def load_slowly(selection: Selection) -> contents.Contents:
        await asyncio.sleep(0.3)
        return await load(selection)

    monkeypatch.setattr(contents, "load", load_slowly)
    indexer = Indexer()
    assert not indexer.refresh(0).is_complete  # although it has not even counted the runs
    first = indexer.refresh(0.4)
    assert 0 < first.done < first.total == 3
    assert search(DAGS, ImageFilter(), 10).images[0].image.job_id == "j2"
    while not indexer.refresh(1).is_complete:
        time.sleep(0.01)
    assert search(DAGS, ImageFilter(), 10).total == 3


CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("task"), st.integers(0, 2), st.integers(0, 1), st.sampled_from(["j", "k", "", "failed"])),
        st.tuples(st.just("state"), st.integers(0, 2), st.sampled_from(["running", "success", "failed"])),
        st.tuples(st.just("delete"), st.integers(0, 2)),
        st.tuples(st.just("look"), st.booleans()),
    ),
    max_size=20,
)


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=CHANGES)
def test_an_index_after_any_changes_equals_a_fresh_one(changes: list[tuple[Any, ...]], tmp_path: Path) -> None:
    runs: dict[int, int] = {}
    indexer = Indexer()
    index_file.file_path().unlink(missing_ok=True)  # of the example before
    try:
        for step, (kind, *details) in enumerate(changes):
            if kind == "look":
                indexer.update_runs(is_full=details[0])
                continue
            number = details[0]
            if kind == "delete":
                if number in runs:
                    delete_run(runs.pop(number))
                continue
            if number not in runs:
                runs[number] = add_run(DAGS[number % 2], f"r{number}")
            if kind == "state":
                set_run_state(runs[number], details[1])
            else:
                at = BEGIN + timedelta(minutes=step)
                result = {FAILURE_KEY: FAILURE} if details[2] == "failed" else image(details[2]) if details[2] else {}
                state = "failed" if details[2] == "failed" else "success"
                add_task(runs[number], "t", result, map_index=details[1], state=state, at=at)
        indexer.update_runs(is_full=True)
        seen = _everything()
        index_file.file_path().unlink()
        Indexer().update_runs(is_full=True)
        assert seen == _everything()
    finally:
        for run in runs.values():
            delete_run(run)


def _everything() -> list[Any]:
    with index_file.connect() as connection:
        tables = ("runs", "images", "sums")
        return [
            [tuple(row) for row in connection.execute(f"select * from {table} order by 1, 2, 3, 4, 5")]
            for table in tables
        ]


class FileBackend(BaseXCom):
    """An XCom backend as users write them: the database has a reference to a file."""

    folder: Path

    @staticmethod
    def deserialize_value(result: Any) -> Any:
        if result.value.endswith("slow.json"):
            time.sleep(1)
        return json.loads((FileBackend.folder / result.value.removeprefix("file-backend:")).read_text())


@pytest.fixture
def file_backend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(backends, "_backend", lambda: FileBackend)
    monkeypatch.setattr(backends, "TIMEOUT_SECONDS", 0.3)
    FileBackend.folder = tmp_path
    return tmp_path


def test_results_are_read_through_the_configured_backend(file_backend: Path) -> None:
    (file_backend / "j.json").write_text(json.dumps(image("j")["return_value"]))
    (file_backend / "slow.json").write_text(json.dumps(image("slow")["return_value"]))
    run = new_run()
    for name in ("j", "slow", "missing"):
        add_task(run, name, {"return_value": f"file-backend:{name}.json"})
    add_task(run, "other", {"return_value": "file-backend:j.json"}, operator="PythonOperator")
    shown = asyncio.run(contents.load(Selection("index_a", "run")))
    assert [each.task_id for each in shown.images] == ["j"]
    assert {note.task_id: note.state for note in shown.notes} == {"missing": "unreadable", "slow": "unreadable"}
    assert all("test_gallery_index.FileBackend" in note.text for note in shown.notes)


@pytest.fixture
def object_storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend

    monkeypatch.setattr(backends, "_backend", lambda: XComObjectStorageBackend)
    monkeypatch.setenv("AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH", tmp_path.as_uri())
    return tmp_path


def test_results_are_read_from_object_storage_of_their_dag_only(object_storage: Path) -> None:
    text = json.dumps(image("j")["return_value"])
    (object_storage / "index_a" / "run").mkdir(parents=True)
    (object_storage / "index_b").mkdir()
    for place in ("index_a/run/x", "index_b/x", "outside"):
        (object_storage / place).write_text(text)
    (object_storage / "index_a" / "large").write_text("[" + " " * backends.MAX_BYTES + "]")
    run = new_run()
    places = {"inside": "index_a/run/x", "up": "index_a/../outside", "dag": "index_b/x", "large": "index_a/large"}
    for task_id, place in places.items():
        add_task(run, task_id, {"return_value": f"{object_storage.as_uri()}/{place}"})
    add_task(run, "other", {"return_value": f"{object_storage.as_uri()}/index_a/run/x"}, operator="PythonOperator")
    add_task(run, "away", {"return_value": "file:///etc/passwd"})
    shown = asyncio.run(contents.load(Selection("index_a", "run")))
    assert {each.task_id for each in shown.images} <= {"inside", "other"}
    assert len(shown.images) == 1
    states = {note.task_id: note.state for note in shown.notes}
    assert states == {"up": "unreadable", "dag": "unreadable", "large": "unreadable", "away": "success"}
