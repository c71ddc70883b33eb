"""Every example DAG runs from start to end under ``dag.test()``, against the emulator and a real S3."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from airflow.sdk import DAG

from airflow_provider_flux.emulator import FluxEmulator
from tests.servers.seaweed import SeaweedFS

EXAMPLES = Path(__file__).parents[2] / "dags_examples"


def load(path: Path) -> DAG:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    dag: DAG = module.dag
    return dag


@pytest.fixture(scope="module", autouse=True)
def _database() -> None:
    from airflow.utils.db import initdb

    initdb()


def run(name: str) -> dict[str, list[Any]]:
    """Run an example DAG; return what each task returned, by task id."""
    dag = load(EXAMPLES / f"{name}.py")
    dag_run = dag.test()
    assert dag_run.state == "success"
    returned: dict[str, list[Any]] = {}
    for ti in sorted(dag_run.get_task_instances(), key=lambda ti: ti.map_index):
        returned.setdefault(ti.task_id, []).append(ti.xcom_pull(task_ids=ti.task_id, map_indexes=ti.map_index))
    assert "sig=" not in json.dumps(returned)
    return returned


def keys(s3: SeaweedFS) -> set[str]:
    return {item["Key"] for item in s3.client().list_objects_v2(Bucket=s3.bucket)["Contents"]}


def test_quickstart(flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    flux_connection.settings(duration=6)  # longer than the grace on the worker, so that the tasks defer
    returned = run("quickstart")
    images = [*returned["hero_to_s3"], *returned["generate_icon"], *returned["generate_banner"]]
    assert {image["uri"] for image in images} == {f"s3://{s3.bucket}/{key}" for key in keys(s3)}
    assert [(image["width"], image["height"]) for image in images] == [(1024, 768), (512, 512), (1280, 512)]
    assert flux_connection.stats()["submits"] == 3


def test_mapped(flux_connection: FluxEmulator, s3: SeaweedFS) -> None:
    returned = run("mapped")
    assert [image["uri"].rpartition("/")[2] for image in returned["upload"]] == ["0.jpeg", "1.jpeg", "2.jpeg"]
    assert [image["id"] for image in returned["upload"]] == [job["id"] for job in returned["generate"]]
    assert len(keys(s3)) == 3


def test_hook_in_a_task(flux_connection: FluxEmulator) -> None:
    (told,) = run("hook_in_a_task")["thumbnail"]
    assert told["thumbnail"] == [128, 128]


def test_every_example_is_tested_here() -> None:
    tested = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert {path.stem for path in EXAMPLES.glob("*.py")} <= tested
