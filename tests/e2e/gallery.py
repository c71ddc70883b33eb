"""A finished run that the gallery shows, with requests to the gallery and replacements of task results."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import requests

if TYPE_CHECKING:
    from tests.e2e.conftest import Stack


@dataclass
class Gallery:
    """A finished run of ``e2e_gallery``."""

    stack: Stack
    run_id: str

    @property
    def path(self) -> str:
        return f"/flux/dags/e2e_gallery/runs/{quote(self.run_id, safe='')}"

    @property
    def ui(self) -> str:
        """URL of Airflow's own page of the run."""
        return f"{self.stack.airflow.url}/dags/e2e_gallery/runs/{quote(self.run_id, safe='')}"

    def get(self, path: str, user: str | None = "viewer", **options: Any) -> requests.Response:
        """Request a path below the run's gallery page, or any path that begins with /flux."""
        airflow = self.stack.airflow
        session = airflow.api_of(user).log_in().session if user else requests.Session()
        session.trust_env = False
        url = airflow.url + (path if path.startswith("/flux") else self.path + path)
        return session.get(url, timeout=60, **options)

    def set_result(self, value: Any, task_id: str = "unrelated") -> None:
        """Replace the result of a task."""
        self.set_results(task_id, {-1: value})

    def set_results(self, task_id: str, values: dict[int, Any]) -> None:
        """Replace the results of a task by map index."""
        self.set_xcoms(task_id, {index: json.dumps(value) for index, value in values.items()})

    def set_xcoms(self, task_id: str, texts: dict[int, str]) -> None:
        """Replace the texts in Airflow's database that hold the results of a task, by map index."""
        with closing(sqlite3.connect(self.stack.airflow.folder / "airflow.db", timeout=30)) as db, db:
            (dag_run_id,) = db.execute("select id from dag_run where run_id = ?", [self.run_id]).fetchone()
            db.execute("delete from xcom where dag_run_id = ? and task_id = ?", [dag_run_id, task_id])
            db.executemany(
                "insert into xcom (dag_run_id, task_id, map_index, key, dag_id, run_id, value, timestamp)"
                " values (?, ?, ?, 'return_value', 'e2e_gallery', ?, ?, '2026-01-01 00:00:00.000000')",
                [[dag_run_id, task_id, index, self.run_id, text] for index, text in texts.items()],
            )

    def set_manifest(self, key: str, *lines: Any) -> None:
        """Store a manifest, and replace the result of a task by that of a batch with this manifest."""
        file = self.put(key, "\n".join(map(json.dumps, lines)).encode())
        self.set_result({"manifest": file["uri"], "manifest_sha256": file["sha256"], "counts": {}, "cost": 0})

    def result(self, map_index: int = 0) -> dict[str, Any]:
        """Return the result of an instance of the task ``generate``."""
        result: dict[str, Any] = self.stack.airflow.api.xcom("e2e_gallery", self.run_id, "generate", map_index)
        return result

    def put(self, key: str, data: bytes) -> dict[str, Any]:
        """Store an object; return the result of a task that had stored it."""
        self.stack.s3.client().put_object(Bucket="flux", Key=key, Body=data)
        sha256 = hashlib.sha256(data).hexdigest()
        return {"id": f"job-{sha256[:8]}", "uri": f"s3://flux/{key}", "sha256": sha256, "bytes": len(data)}
