"""The built wheel holds the package and nothing else."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path


def test_the_wheel_holds_the_package_alone(tmp_path: Path) -> None:
    root = Path(__file__).parents[2]
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)],
        check=True,
        capture_output=True,
    )
    (wheel,) = tmp_path.glob("airflow_provider_flux-*.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.partition("/")[0] for name in names} == {
        "airflow_provider_flux",
        wheel.name.replace("-py3-none-any.whl", ".dist-info"),
    }
    assert not [name for name in names if "tests/" in name or "/test_" in name]
    entry_points = zipfile.ZipFile(wheel).read(wheel.name.replace("-py3-none-any.whl", ".dist-info/entry_points.txt"))
    assert b"[apache_airflow_provider]" in entry_points
    assert b"[airflow.plugins]" in entry_points
    assert "airflow_provider_flux/py.typed" in names
    assert "airflow_provider_flux/plugins/static/gallery.css" in names
    assert "airflow_provider_flux/plugins/templates/images.html" in names
