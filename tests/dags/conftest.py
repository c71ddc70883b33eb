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

from tests.conftest import HAS_COMMON_AI
from tests.servers.seaweed import SeaweedFS

collect_ignore = [] if HAS_COMMON_AI else ["test_llm_recipes.py"]
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


def run_to_failure(path: Path) -> None:
    """Run the DAG in a file to its end, at which it has failed."""
    assert load(path).test(run_after=datetime.now(UTC), logical_date=None).state == "failed"


def stored(s3: SeaweedFS, image: dict[str, Any]) -> bytes:
    """The file of an image that a task returned."""
    key = image["uri"].removeprefix(f"s3://{s3.bucket}/")
    file: bytes = s3.client().get_object(Bucket=s3.bucket, Key=key)["Body"].read()
    return file


@pytest.fixture(scope="session")
def run_dag() -> RunDag:
    from airflow.utils.db import initdb

    initdb()
    return run
