"""Run a DAG in this process: a database, and what each task returned."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

RunDag = Callable[[Path], dict[str, list[Any]]]


def load(path: Path) -> DAG:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dag: DAG = module.dag
    return dag


def run(path: Path) -> dict[str, list[Any]]:
    """Run the DAG in a file to its successful end; return what each task returned, by task id."""
    # As a run that is triggered by hand: without a logical date.
    dag_run = load(path).test(run_after=datetime.now(UTC), logical_date=None)
    assert dag_run.state == "success"
    returned: dict[str, list[Any]] = {}
    for ti in sorted(dag_run.get_task_instances(), key=lambda ti: ti.map_index):
        returned.setdefault(ti.task_id, []).append(ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index))
    assert "sig=" not in json.dumps(returned)
    return returned


@pytest.fixture(scope="session")
def run_dag() -> RunDag:
    from airflow.utils.db import initdb

    initdb()
    return run
