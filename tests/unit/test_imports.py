"""What importing us loads, and what may know of what."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import airflow_provider_flux

PACKAGE = Path(airflow_provider_flux.__file__).parent
HEAVY = ("httpx", "aiohttp", "httpx_aiohttp", "boto3", "botocore", "PIL", "fastapi")
OURS = """
from airflow_provider_flux.operators.flux import FluxGenerateOperator
from airflow_provider_flux.transfers.flux_to_s3 import FluxToS3Operator
"""


def loaded_by(code: str) -> set[str]:
    # Airflow itself may load some of them; only what our operators add to this counts.
    airflow = "import sys, airflow.triggers.base\nfrom airflow.sdk import BaseOperator, BaseOperatorLink\n"
    show = f"\nprint('loaded', *(set({HEAVY!r}) & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", airflow + code + show], capture_output=True, text=True, check=True)
    return set(run.stdout.strip().splitlines()[-1].split()[1:])


def test_a_dag_file_loads_no_http_client_no_boto_and_no_pillow() -> None:
    assert loaded_by(OURS) - loaded_by("") == set()


def test_the_plugin_that_every_component_imports_loads_no_web_framework_either() -> None:
    base = "import airflow.plugins_manager\n"
    assert loaded_by(base + "import airflow_provider_flux.plugins.flux_plugin") - loaded_by(base) == set()


def imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    found = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    return found | {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) and node.module}


@pytest.mark.parametrize(
    ("part", "forbidden"),
    [
        (
            "client",
            (
                "airflow.",
                "airflow_provider_flux.images",
                "airflow_provider_flux.hooks",
                "airflow_provider_flux.emulator",
            ),
        ),
        (
            "emulator",
            ("airflow.", *(f"airflow_provider_flux.{part}" for part in ("client", "images", "hooks", "operators"))),
        ),
        (
            "images",
            ("airflow_provider_flux.hooks", "airflow_provider_flux.operators", "airflow_provider_flux.triggers"),
        ),
    ],
)
def test_imports_run_one_way(part: str, forbidden: tuple[str, ...]) -> None:
    files = list((PACKAGE / part).glob("*.py"))
    assert files
    for file in files:
        wrong = {name for name in imports(file) if f"{name}.".startswith(forbidden)}
        assert not wrong, f"{file.name} imports {wrong}"


def test_only_one_file_imports_httpx() -> None:
    files = [file for file in PACKAGE.rglob("*.py") if {"httpx", "httpx_aiohttp"} & imports(file)]
    assert [file.name for file in files] == ["client.py"]
