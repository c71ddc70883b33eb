"""Gallery: the data of a run's page and of the Browse page, on PostgreSQL with 300,000 XComs."""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import threading
import time
from collections.abc import Callable
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import psutil

from benchmarks.harness import airflow_home, contender, goal, report
from tests.servers.postgres import PostgreSQL, binaries

RUNS = 2000
"""Of each kind: with 25 images, and with 100 other results; together 300,000 XComs."""
ROUNDS = 30
VIEWERS = 4
GOAL = 50.0
"""Milliseconds."""
MEMORY_GOAL = 100.0
"""MiB."""
HEAVY = "flux_heavy"
"""The DAG with a FLUX task beside 150 results of 480 kB, in runs named after what these are."""

_SEED = """
insert into dag_run (dag_id, run_id, state, run_type, run_after, clear_number, end_date)
select kind || g % 20, 'run_' || g, 'success', 'manual', now(), 0, now()
from unnest(array['flux_', 'other_']) kind, generate_series(1, :runs) g
union all select 'flux_heavy', kind, 'success', 'manual', now(), 0, now()
from unnest(array['random', 'compressible']) kind;
insert into task_instance (id, dag_id, run_id, task_id, map_index, state, operator, pool, pool_slots, try_number,
    max_tries, unixname, priority_weight, queue)
select gen_random_uuid(), r.dag_id, r.run_id, t.task_id, t.map_index, 'success', t.operator, 'default_pool', 1, 1, 0,
    'u', 1, 'default'
from dag_run r join (
    select 'flux_' kind, 'generate' task_id, i map_index, 'FluxGenerateOperator' operator from generate_series(0, 24) i
    union all select 'other_', 'task_' || i, -1, 'PythonOperator' from generate_series(1, 100) i
    union all select 'flux_heavy', 'generate', -1, 'FluxGenerateOperator'
    union all select 'flux_heavy', 'task_' || i, -1, 'PythonOperator' from generate_series(1, 150) i
) t on t.kind = regexp_replace(r.dag_id, '\\d+$', '');
insert into xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)
select r.id, t.task_id, t.map_index, k, r.dag_id, r.run_id, case
    when k != 'return_value' then '"http://localhost/flux/dags/x/runs/y/tasks/generate/1/image"'::jsonb
    when t.operator != 'PythonOperator' then jsonb_build_object('id', t.id, 'model', 'flux-dev', 'cost', 2.5,
        'status', 'Ready', 'seed', 7, 'uri', 'file:///none/' || t.id || '.png', 'width', 1024, 'height', 768,
        'bytes', 123456, 'sha256', md5(t.id::text) || md5(t.id::text))
    when r.run_id = 'random' then jsonb_build_object('id', t.id,
        'data', (select string_agg(md5(g || t.id::text), '') from generate_series(1, 15000) g))
    when r.run_id = 'compressible' then jsonb_build_object('id', t.id, 'data', repeat('x', 480000))
    else jsonb_build_object('id', t.id, 'rows', 7) end, now()
from dag_run r join task_instance t on t.dag_id = r.dag_id and t.run_id = r.run_id
cross join unnest(array['return_value', '_link_FluxImageLink']) k
where k = 'return_value' or t.operator != 'PythonOperator';
analyze;
"""


def main() -> None:
    if binaries() is None:
        print("Gallery: left out, since PostgreSQL is not installed.")
        return
    measured = measure_on_postgres(RUNS)
    rows = [[name, f"{ms:.1f} ms"] for name, ms in measured["ms"].items()]
    slowest = max(measured["ms"].values())
    report(
        "Gallery",
        f"The data of a page, on PostgreSQL with {measured['xcoms']:,} XComs and {measured['images']:,} images in the\n"
        f"index; the median of {ROUNDS}. Memory is the peak above that of the idle process while {VIEWERS} viewers\n"
        "load each page ten times at once.",
        ["data of", "median"],
        rows,
        goal("The slowest", slowest, GOAL, unit=" ms"),
        goal("Memory", measured["memory"], MEMORY_GOAL, unit=" MiB"),
        f"Sequential scans: {', '.join(measured['scans']) or 'none'}.",
    )


def measure_on_postgres(runs: int) -> Any:
    """Return what :func:`measure` does, with a database of so many runs of each kind."""
    with PostgreSQL() as server, airflow_home({}) as env, TemporaryDirectory(prefix="flux-bench-") as folder:
        database = {"AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": server.url, "AIRFLOW__FLUX__GALLERY_CACHE_FOLDER": folder}
        return contender("benchmarks.gallery", runs, env=env | database, timeout=900)


def measure(runs: int) -> dict[str, Any]:
    """Fill the database that is configured, and measure the pages' data in this process."""
    from airflow.utils.db import initdb
    from airflow.utils.session import create_session
    from sqlalchemy import text

    from airflow_provider_flux.gallery import contents, index, indexing
    from airflow_provider_flux.gallery.queries import Selection

    initdb()
    with create_session() as session:
        for statement in _SEED.split(";\n"):
            if statement.strip():
                session.execute(text(statement), {"runs": runs} if ":runs" in statement else {})
        xcoms = session.scalar(text("select count(*) from xcom"))
    dags = [*(f"flux_{number}" for number in range(20)), HEAVY]
    pages: dict[str, Callable[[], Any]] = {
        "a run of 25 images": lambda: asyncio.run(contents.load(Selection("flux_3", "run_3"))),
        "a run beside 150 results of 480 kB": lambda: asyncio.run(contents.load(Selection(HEAVY, "random"))),
        "the same, compressible": lambda: asyncio.run(contents.load(Selection(HEAVY, "compressible"))),
        "Browse": lambda: index.search(dags, index.ImageFilter(), 48),
        "Browse, one DAG and model": lambda: index.search(dags, index.ImageFilter("flux_3", "flux-dev"), 48),
        "Costs by day, DAG and model": lambda: index.aggregate(dags, index.ImageFilter()),
    }
    indexing.Indexer().update_runs(is_full=True)
    return {
        "xcoms": xcoms,
        "images": index.search(dags, index.ImageFilter(), 1).total,
        "ms": {name: _milliseconds(page) for name, page in pages.items()},
        "memory": _peak_memory(list(pages.values())),
        "scans": _sequential_scans([*pages.values(), indexing.Indexer().update_runs]),
    }


def _milliseconds(page: Callable[[], Any]) -> float:
    page()
    times = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        page()
        times.append((time.perf_counter() - began) * 1000)
    return median(times)


def _peak_memory(pages: list[Callable[[], Any]]) -> float:
    """Return MiB above the idle process while several viewers load each page ten times."""
    gc.collect()
    process = psutil.Process()
    idle = process.memory_info().rss
    viewers = [threading.Thread(target=lambda: [page() for page in pages * 10]) for _ in range(VIEWERS)]
    for viewer in viewers:
        viewer.start()
    peak = idle
    while any(viewer.is_alive() for viewer in viewers):
        peak = max(peak, process.memory_info().rss)
        time.sleep(0.005)
    return (peak - idle) / 2**20


def _sequential_scans(calls: list[Callable[[], Any]]) -> list[str]:
    """Return the tables of Airflow that the calls read from beginning to end, by the plans of their queries."""
    from airflow.utils.session import create_session
    from sqlalchemy import event

    seen: list[tuple[str, Any]] = []
    with create_session() as session:
        engine: Any = session.get_bind()
    event.listen(engine, "before_cursor_execute", lambda *call: seen.append((call[2], call[3])))
    for call in calls:
        call()
    plans = []
    for statement, parameters in list(seen):
        if statement.startswith("SELECT"):
            connection = engine.raw_connection()
            cursor = connection.cursor()
            cursor.execute(f"explain {statement}", parameters)
            plans += [line for (line,) in cursor.fetchall()]
            connection.close()
    assert any("xcom_pkey" in line for line in plans), "the queries are seen"
    return sorted({line.split("Seq Scan on ")[1].split()[0] for line in plans if "Seq Scan on " in line})


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(json.dumps(measure(int(sys.argv[1]))))
    else:
        main()
