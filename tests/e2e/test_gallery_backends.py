"""The gallery where an XCom backend keeps results outside of Airflow's database."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.conftest import running_stack
from tests.e2e.gallery import Gallery
from tests.servers.seaweed import SeaweedFS

pytestmark = pytest.mark.e2e


def test_results_in_object_storage_are_shown(_seaweed: SeaweedFS, tmp_path: Path) -> None:
    folder = tmp_path / "xcoms"
    settings = {
        "AIRFLOW__CORE__XCOM_BACKEND": "airflow.providers.common.io.xcom.backend.XComObjectStorageBackend",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_PATH": folder.as_uri(),
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_THRESHOLD": "0",
        "AIRFLOW__COMMON_IO__XCOM_OBJECTSTORAGE_COMPRESSION": "gzip",
    }
    with running_stack(tmp_path, _seaweed, **settings) as stack:
        stack.flux.settings(duration=0)
        api = stack.airflow.api
        api.wait_for_dag("e2e_gallery")
        gallery = Gallery(stack, api.trigger("e2e_gallery"))
        assert api.wait_for_run("e2e_gallery", gallery.run_id) == "failed"
        page = gallery.get("")
        assert "of 53" in re.sub(r"\s+", " ", page.text)
        assert gallery.get("/tasks/generate/0/images/0").headers["Content-Type"] == "image/jpeg"
        assert "was moderated" in gallery.get("/tasks/moderated/-1").text
        for file in folder.rglob("generate/*.gz"):
            file.unlink()
        assert "XComObjectStorageBackend" in gallery.get("/tasks/generate/{MAP_INDEX}").text
