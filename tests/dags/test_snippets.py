"""Every Python snippet of the README and of docs/ runs as it stands, against the emulator and a real S3."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from airflow_provider_flux.emulator import FluxEmulator
from tests.conftest import DAGS_FOLDER
from tests.dags.conftest import RunDag
from tests.servers.seaweed import SeaweedFS
from tests.snippets import SNIPPETS, Snippet

DAGS = [snippet for snippet in SNIPPETS if snippet.kind == "dag"]
SCRIPTS = [snippet for snippet in SNIPPETS if snippet.kind == "script"]
TESTED_PAGES = sorted({snippet.page for snippet in SNIPPETS if snippet.kind == "test"})


def product() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (640, 480), "teal").save(file, "PNG")
    return file.getvalue()


def here(snippet: Snippet, s3: SeaweedFS, folder: Path) -> str:
    """Return the text with this test's bucket and folder in place of the reader's."""
    return snippet.text.replace("my-bucket", s3.bucket).replace("/tmp/", f"{folder}/")


@pytest.mark.parametrize("snippet", DAGS, ids=str)
def test_a_dag(run_dag: RunDag, flux_connection: FluxEmulator, s3: SeaweedFS, tmp_path: Path, snippet: Snippet) -> None:
    flux_connection.settings(duration=0)
    file = DAGS_FOLDER / f"snippet_{DAGS.index(snippet)}.py"
    file.write_text(here(snippet, s3, tmp_path))
    s3.client().put_object(Bucket=s3.bucket, Key="product.png", Body=product())
    assert run_dag(file)
    assert flux_connection.stats()["submits"] >= 1


@pytest.mark.parametrize("snippet", SCRIPTS, ids=str)
def test_a_script(flux_connection: FluxEmulator, s3: SeaweedFS, tmp_path: Path, snippet: Snippet) -> None:
    flux_connection.settings(duration=0)
    exec(compile(here(snippet, s3, tmp_path), str(snippet), "exec"), {"__name__": "snippet"})


@pytest.mark.parametrize("page", TESTED_PAGES)
def test_the_tests_of_a_page(page: str, tmp_path: Path) -> None:
    """In a process and a home of their own: nothing but the page says what they need."""
    parts = [snippet for snippet in SNIPPETS if snippet.page == page and snippet.kind == "test"]
    for snippet in parts:
        (tmp_path / snippet.file).parent.mkdir(exist_ok=True)
        (tmp_path / snippet.file).write_text(snippet.text)
    env = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "."]
    subprocess.run(command, check=True, env={**env, "HOME": str(tmp_path)}, cwd=tmp_path)


def test_every_kind_is_found() -> None:
    assert len(DAGS) >= 9
    assert SCRIPTS
    assert "docs/testing.md" in TESTED_PAGES
