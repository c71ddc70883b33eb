"""The built wheel holds the package and nothing else; the source archive holds what a contributor needs."""

from __future__ import annotations

import email
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

import airflow_provider_flux
from airflow_provider_flux.get_provider_info import get_provider_info

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built wheel and source archive."""
    folder = tmp_path_factory.mktemp("dist")
    command = [
        sys.executable,
        "-m",
        "build",
        "--wheel",
        "--sdist",
        "--no-isolation",
        "--outdir",
        str(folder),
        str(ROOT),
    ]
    subprocess.run(command, check=True, capture_output=True)
    return folder


def _wheel(dist: Path) -> tuple[Path, zipfile.ZipFile]:
    (wheel,) = dist.glob("airflow_provider_flux-*.whl")
    return wheel, zipfile.ZipFile(wheel)


def test_the_wheel_holds_the_package_alone(dist: Path) -> None:
    wheel, archive = _wheel(dist)
    names = archive.namelist()
    assert {name.partition("/")[0] for name in names} == {
        "airflow_provider_flux",
        wheel.name.replace("-py3-none-any.whl", ".dist-info"),
    }
    assert not [name for name in names if "tests/" in name or "/test_" in name]
    entry_points = archive.read(wheel.name.replace("-py3-none-any.whl", ".dist-info/entry_points.txt"))
    assert b"[apache_airflow_provider]" in entry_points
    assert b"[airflow.plugins]" in entry_points
    assert "airflow_provider_flux/py.typed" in names
    assert "airflow_provider_flux/gallery/static/gallery.css" in names
    assert "airflow_provider_flux/gallery/templates/images.html" in names


def test_wheel_package_and_provider_info_have_one_version(dist: Path) -> None:
    wheel, archive = _wheel(dist)
    metadata = archive.read(wheel.name.replace("-py3-none-any.whl", ".dist-info/METADATA"))
    version = email.message_from_bytes(metadata)["Version"]
    assert version == airflow_provider_flux.__version__ == get_provider_info()["versions"][0]
    assert wheel.name.split("-")[1] == version


def test_the_source_archive_holds_what_a_contributor_needs(dist: Path) -> None:
    (path,) = dist.glob("airflow_provider_flux-*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = {
        "CONTRIBUTING.md",
        "SECURITY.md",
        ".github/workflows/ci.yml",
        "docs/conf.py",
        "Makefile",
        "docs/architecture.md",
        "scripts/demo.py",
        "tests/README.md",
        "LICENSE",
    }
    assert needed <= names
