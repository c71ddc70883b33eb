"""What Airflow knows of a run: what its tasks returned and how they ended; and which runs used FLUX.

The only file of the gallery that asks Airflow's database.
"""

from __future__ import annotations

import datetime
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import Text, cast, func, select

from airflow_provider_flux.gallery.results import Returned, read_result
from airflow_provider_flux.links.flux import FluxImageLink

# Each of our operators leaves one, and XComs are indexed by their key.
_MARK = FluxImageLink().xcom_key


@dataclass(frozen=True, slots=True)
class Task:
    """One task instance.

    :param state: As Airflow calls it; None before it was scheduled.
    :param is_flux: Whether its operator is one of ours.
    """

    task_id: str
    map_index: int
    state: str | None
    is_flux: bool


@dataclass(frozen=True, slots=True)
class Run:
    """One DAG run in which FLUX was used.

    :param tasks: Number of task instances that used it.
    :param at: When the last of them told of it.
    """

    dag_id: str
    run_id: str
    tasks: int
    at: datetime.datetime


def returned(dag_id: str, run_id: str, task_id: str | None = None, map_index: int | None = None) -> list[Returned]:
    """Return what the tasks of a run returned; of one task, or one of its mapped instances, if named."""
    # As text, and read one by one: what a task has left there must not keep the others' images from being shown.
    text: Any = cast(XComModel.value, Text).label("text")
    query = XComModel.get_many(
        run_id=run_id, dag_ids=dag_id, key="return_value", task_ids=task_id, map_indexes=map_index
    ).with_only_columns(XComModel.task_id, XComModel.map_index, text, XComModel.timestamp)
    with create_session() as session:
        return [
            Returned(row.task_id, row.map_index, read_result(row.text), row.timestamp) for row in session.execute(query)
        ]


def tasks(dag_id: str, run_id: str, task_id: str | None = None, map_index: int | None = None) -> list[Task]:
    """Return the task instances of a run; of one task, or one of its mapped instances, if named."""
    columns: Any = (TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state, TaskInstance.operator)
    query = select(*columns).where(TaskInstance.dag_id == dag_id, TaskInstance.run_id == run_id)
    if task_id is not None:
        query = query.where(TaskInstance.task_id == task_id)
    if map_index is not None:
        query = query.where(TaskInstance.map_index == map_index)
    with create_session() as session:
        rows = session.execute(query.order_by(TaskInstance.task_id, TaskInstance.map_index))
        return [
            Task(row.task_id, row.map_index, row.state and str(row.state), "Flux" in (row.operator or ""))
            for row in rows
        ]


def dags_with_images() -> list[str]:
    """Return the ids of all DAGs in which FLUX was used."""
    with create_session() as session:
        return list(session.scalars(select(XComModel.dag_id).where(XComModel.key == _MARK).distinct()))


def recent_runs(dag_ids: Iterable[str], limit: int, offset: int) -> list[Run]:
    """Return the runs of these DAGs in which FLUX was used, latest first."""
    last: Any = func.max(XComModel.timestamp)
    query = (
        select(XComModel.dag_id, XComModel.run_id, func.count(), last)
        .where(XComModel.key == _MARK, XComModel.dag_id.in_(list(dag_ids)))
        .group_by(XComModel.dag_id, XComModel.run_id)
        .order_by(last.desc())
        .limit(limit)
        .offset(offset)
    )
    with create_session() as session:
        return [Run(*row) for row in session.execute(query)]
