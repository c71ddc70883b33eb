"""Queries on Airflow's database: the results and states of a run's tasks, and the runs that used FLUX.

The only file of the gallery that reads the database.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from airflow.models.dagrun import DagRun
from airflow.models.taskinstance import TaskInstance
from airflow.models.xcom import XComModel
from airflow.utils.session import create_session
from sqlalchemy import Text, cast, func, select

from airflow_provider_flux.failures import FAILURE_KEY
from airflow_provider_flux.gallery.results import TaskResult, read_result
from airflow_provider_flux.gallery.shape import looks_like_image
from airflow_provider_flux.links.flux import FluxImageLink

# Each FLUX operator writes this XCom, and XComs are indexed by their key.
_LINK_XCOM_KEY = FluxImageLink().xcom_key
# How the operators and decorators of this provider are named.
_OPERATOR_NAME = "Flux"
_ROWS_PER_FETCH = 50
_RUNS_PER_QUERY = 200
_FINAL_STATES = frozenset({"success", "failed", "upstream_failed", "skipped", "removed"})


@dataclass(frozen=True, slots=True)
class Selection:
    """The task instances that a page is about.

    :param task_id: One task; None for all tasks of the run.
    :param map_index: One instance of that task, or of each task of the group; None for all of them.
    :param group_id: One task group, with those inside it; its tasks have its id as a prefix.
    """

    dag_id: str
    run_id: str
    task_id: str | None = None
    map_index: int | None = None
    group_id: str | None = None

    @property
    def is_part(self) -> bool:
        """Whether it is less than the whole run."""
        return self.task_id is not None or self.group_id is not None


@dataclass(frozen=True, slots=True)
class TaskStatus:
    """The state of one task instance.

    :param state: Airflow's name of the state; None before the task is scheduled.
    :param is_flux: Whether it runs one of this provider's operators.
    """

    task_id: str
    map_index: int
    state: str | None
    is_flux: bool

    @property
    def is_finished(self) -> bool:
        """Whether the state is final."""
        return self.state in _FINAL_STATES


@dataclass(frozen=True, slots=True)
class RunVersion:
    """One DAG run that used FLUX, with what changes when its results do.

    :param dag_run_id: The run's number in Airflow's database.
    :param version: Differs after every change of its results.
    :param last_active_at: When the last of its FLUX tasks ran.
    :param is_finished: Whether the run has ended.
    """

    dag_run_id: int
    dag_id: str
    run_id: str
    version: str
    last_active_at: datetime.datetime
    is_finished: bool


def task_results(selection: Selection, references: str | None = None) -> list[TaskResult]:
    """Return the results of the selected task instances that may describe images.

    Those are all results of this provider's operators, and short ones of other tasks that name a job or a manifest:
    a run may contain any amount of other data, which is not read.

    :param references: How a text begins that stands for a value outside of the database; None: none does.
    """
    # Selected as text and parsed one by one: one malformed value must not hide the other tasks' images.
    text: Any = cast(XComModel.value, Text)
    with create_session() as session:
        run = _dag_run_id(session, selection)
        flux_tasks = list(session.scalars(_flux_task_ids(selection)))
        of_run = select(XComModel.task_id, XComModel.map_index, text.label("text"), XComModel.timestamp).where(
            XComModel.dag_run_id == run, XComModel.key == "return_value", *_selected(XComModel, selection)
        )
        uses_flux = XComModel.task_id.in_(flux_tasks)
        is_image = looks_like_image(session.get_bind().dialect.name, references)
        others = _read(session, of_run.where(~uses_flux, is_image), uses_flux=False)
        return [*_read(session, of_run.where(uses_flux)), *others]


def task_failures(selection: Selection) -> list[TaskResult]:
    """Return what the selected task instances wrote about their failures."""
    text: Any = cast(XComModel.value, Text)
    with create_session() as session:
        run = _dag_run_id(session, selection)
        query = select(XComModel.task_id, XComModel.map_index, text.label("text"), XComModel.timestamp)
        query = query.where(XComModel.dag_run_id == run, XComModel.key == FAILURE_KEY)
        return _read(session, query.where(*_selected(XComModel, selection)), key=FAILURE_KEY)


def _dag_run_id(session: Any, selection: Selection) -> int:
    """Return the run's number, with which the primary key of XComs begins; -1 if there is no such run."""
    query = select(DagRun.id).where(DagRun.dag_id == selection.dag_id, DagRun.run_id == selection.run_id)
    return int(session.scalar(query) or -1)


def _flux_task_ids(selection: Selection) -> Any:
    return (
        select(TaskInstance.task_id)
        .where(TaskInstance.dag_id == selection.dag_id, TaskInstance.run_id == selection.run_id)
        .where(TaskInstance.operator.contains(_OPERATOR_NAME))
        .distinct()
    )


def _selected(model: Any, selection: Selection) -> list[Any]:
    """Return the conditions on the part of the run that is selected."""
    conditions = []
    if selection.task_id is not None:
        conditions.append(model.task_id == selection.task_id)
    if selection.group_id is not None:
        conditions.append(model.task_id.startswith(f"{selection.group_id}.", autoescape=True))
    if selection.map_index is not None:
        conditions.append(model.map_index == selection.map_index)
    return conditions


def _read(session: Any, query: Any, **known: Any) -> list[TaskResult]:
    rows = session.execute(query.execution_options(yield_per=_ROWS_PER_FETCH))
    return [TaskResult(row.task_id, row.map_index, read_result(row.text), row.timestamp, **known) for row in rows]


def task_statuses(selection: Selection) -> list[TaskStatus]:
    """Return the states of the selected task instances."""
    columns: Any = (TaskInstance.task_id, TaskInstance.map_index, TaskInstance.state, TaskInstance.operator)
    query = select(*columns).where(TaskInstance.dag_id == selection.dag_id, TaskInstance.run_id == selection.run_id)
    query = query.where(*_selected(TaskInstance, selection))
    with create_session() as session:
        rows = session.execute(query.order_by(TaskInstance.task_id, TaskInstance.map_index))
        return [
            TaskStatus(row.task_id, row.map_index, row.state and str(row.state), _OPERATOR_NAME in (row.operator or ""))
            for row in rows
        ]


def run_versions(dag_run_ids: Collection[int] | None = None) -> list[RunVersion]:
    """Return the runs that used FLUX, latest first.

    :param dag_run_ids: Which runs to look at, by their numbers in Airflow's database; None: all.
    """
    columns: Any = (XComModel.dag_run_id, func.count().label("number"), func.max(XComModel.timestamp).label("latest"))
    query = select(*columns).where(XComModel.key == _LINK_XCOM_KEY).group_by(XComModel.dag_run_id)
    if dag_run_ids is not None:
        query = query.where(XComModel.dag_run_id.in_(dag_run_ids))
    with create_session() as session:
        links = {row.dag_run_id: row for row in session.execute(query)}
        runs = [run for ids in _chunks(list(links)) for run in session.execute(_runs_query(ids))]
    versions = [_run_version(run, links[run.id]) for run in runs]
    return sorted(versions, key=lambda version: version.last_active_at, reverse=True)


def _chunks(ids: list[int]) -> Iterator[list[int]]:
    # Few enough for the database to look each up in an index.
    return (ids[start : start + _RUNS_PER_QUERY] for start in range(0, len(ids), _RUNS_PER_QUERY))


def _runs_query(ids: list[int]) -> Any:
    columns: Any = (DagRun.id, DagRun.dag_id, DagRun.run_id, DagRun.state, DagRun.end_date)
    return select(*columns).where(DagRun.id.in_(ids))


def _run_version(run: Any, links: Any) -> RunVersion:
    version = f"{run.id} {links.number} {links.latest} {run.state} {run.end_date}"
    is_finished = str(run.state) in ("success", "failed")
    return RunVersion(run.id, run.dag_id, run.run_id, version, links.latest, is_finished)


def database_id() -> str:
    """Return what distinguishes Airflow's database from those of other installations on this machine."""
    with create_session() as session:
        bind: Any = session.get_bind()
        return hashlib.sha256(bind.engine.url.render_as_string(hide_password=True).encode()).hexdigest()[:12]


def newest_dag_run_id() -> int:
    """Return the number of the newest DAG run in Airflow's database; 0 if there is none."""
    with create_session() as session:
        return session.scalar(select(func.max(DagRun.id))) or 0


def active_dag_run_ids(after: int) -> set[int]:
    """Return the numbers of the DAG runs that are queued or running, or newer than number ``after``."""
    # Two queries, each with an index of its own.
    active = select(DagRun.id).where(DagRun.state.in_(("queued", "running")))
    newer = select(DagRun.id).where(DagRun.id > after)
    with create_session() as session:
        return {*session.scalars(active), *session.scalars(newer)}


def run_states(runs: Collection[tuple[str, str]]) -> dict[tuple[str, str], str]:
    """Return Airflow's names of the states of these runs, by DAG and run."""
    query = select(DagRun.dag_id, DagRun.run_id, DagRun.state)
    query = query.where(DagRun.dag_id.in_({dag_id for dag_id, _ in runs}), DagRun.run_id.in_({run for _, run in runs}))
    with create_session() as session:
        return {(row.dag_id, row.run_id): str(row.state) for row in session.execute(query)}
