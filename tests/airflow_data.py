"""Rows of Airflow's database, as a scheduler and workers write them, without running either."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import delete, insert, select, update

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
LINK_KEY = "_link_FluxImageLink"


def add_run(dag_id: str, run_id: str, *, state: str = "success") -> int:
    """Add a DAG run; return its number."""
    with create_session() as session:
        values = {"dag_id": dag_id, "run_id": run_id, "state": state, "run_type": "manual", "run_after": BEGIN}
        result: Any = session.execute(insert(DagRun).values(**values))
        return int(result.inserted_primary_key[0])


def set_run_state(run: int, state: str) -> None:
    with create_session() as session:
        session.execute(update(DagRun).where(DagRun.id == run).values(state=state))


def delete_run(run: int) -> None:
    with create_session() as session:
        session.execute(delete(DagRun).where(DagRun.id == run))


def add_task(
    run: int,
    task_id: str,
    xcoms: Mapping[str, Any],
    *,
    map_index: int = -1,
    state: str = "success",
    operator: str = "FluxGenerateOperator",
    at: datetime = BEGIN,
) -> None:
    """Add a task instance in place of an earlier attempt, with its XComs by key and, as of a FLUX task, its link."""
    if operator.startswith("Flux"):
        xcoms = {**xcoms, LINK_KEY: "http://localhost/flux/"}
    with create_session() as session:
        dag_id, run_id = session.execute(select(DagRun.dag_id, DagRun.run_id).where(DagRun.id == run)).one()
        names = {"dag_id": dag_id, "run_id": run_id, "task_id": task_id, "map_index": map_index}
        session.execute(delete(TaskInstance).filter_by(**names))
        task = {"state": state, "operator": operator, "pool": "default_pool", "pool_slots": 1}
        session.execute(insert(TaskInstance).values(**names, **task))
        for key, value in xcoms.items():
            session.execute(insert(XComModel).values(**names, dag_run_id=run, key=key, value=value, timestamp=at))
