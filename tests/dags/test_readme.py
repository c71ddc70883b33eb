"""Every Python snippet of the README runs as it stands, against the emulator and a real S3."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from airflow_provider_flux.emulator import FluxEmulator
from airflow_provider_flux.operators.batch import FluxGenerateBatchOperator
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
from tests.conftest import DAGS_FOLDER
from tests.dags.conftest import RunDag
from tests.servers.seaweed import SeaweedFS

README = (Path(__file__).parents[2] / "README.md").read_text()
SNIPPETS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
DAGS = [snippet for snippet in SNIPPETS if "with DAG(" in snippet]
TESTS = [snippet for snippet in SNIPPETS if "def test_" in snippet]


def picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (640, 480), "teal").save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("number", range(len(DAGS)))
def test_a_dag(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, number: int) -> None:
    file = DAGS_FOLDER / f"readme_{number}.py"
    file.write_text(DAGS[number].replace("my-bucket", s3.bucket))
    s3.client().put_object(Bucket=s3.bucket, Key="product.png", Body=picture())
    assert run_dag(file)
    assert flux_connection.stats()["submits"] >= 1


def test_the_tests(tmp_path: Path) -> None:
    assert TESTS
    for number, snippet in enumerate(TESTS):
        (tmp_path / f"test_{number}.py").write_text(snippet)
    subprocess.run([sys.executable, "-m", "pytest", "-q", tmp_path], check=True, env={**os.environ}, cwd=tmp_path)


def test_no_snippet_is_left_out() -> None:
    assert len(DAGS) + len(TESTS) == len(SNIPPETS) >= 4


def test_the_connections_are_json() -> None:
    connections = re.findall(r"AIRFLOW_CONN_\w+='(.*)'", README)
    assert [json.loads(connection)["conn_type"] for connection in connections] == ["flux", "flux"]


@pytest.mark.parametrize("operator", [FluxGenerateOperator, FluxGenerateBatchOperator, FluxToS3Operator])
def test_every_parameter_is_told(operator: type) -> None:
    names = set(operator.__init__.__annotations__) - {"kwargs", "return"}  # type: ignore[misc]
    section = README.split(f"### {operator.__name__}")[1].split("\n### ")[0]
    assert names <= set(re.findall(r"`(\w+)`", section))
