"""The SQLite file of the image index: derived data that several API server processes share.

It may be deleted at any time, and is made again if it is damaged or of another version.
"""

from __future__ import annotations

import datetime
import json
import logging
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from airflow_provider_flux.gallery.queries import RunVersion, database_id
from airflow_provider_flux.gallery.results import GalleryImage
from airflow_provider_flux.gallery.thumbnails import cache_folder

log = logging.getLogger(__name__)

_SCHEMA_VERSION = 2
_BUSY_TIMEOUT_SECONDS = 10.0
_SCHEMA = """
create table runs (
    dag_id text not null, run_id text not null, dag_run_id integer not null, version text not null,
    last_active_at real not null, is_finished integer not null, retry_at real,
    primary key (dag_id, run_id)
) without rowid;
create unique index runs_order on runs (last_active_at desc, dag_id, run_id);
create table images (
    dag_id text not null, run_id text not null, position integer not null,
    task_id text not null, map_index integer not null, number integer not null,
    job_id text, location text, model text, state text not null, created_at real not null, day text not null,
    cost real not null, unknown_costs integer not null, reused integer not null,
    lost integer not null, lost_cost real not null,
    prompt text, folded_prompt text, returned_at real not null, planned_uri text, fields text not null,
    primary key (dag_id, run_id, position)
) without rowid;
create index images_job on images (job_id);
create index images_reused on images (dag_id) where reused;
create table sums (
    dag_id text not null, run_id text not null, day text not null, model text, state text not null,
    images integer not null, cost real not null, unknown_costs integer not null, reused integer not null,
    lost integer not null, lost_cost real not null
);
create index sums_run on sums (dag_id, run_id);
create table receipts (
    job_id text not null, location text not null, prompt text, folded_prompt text, cost real, read_at real not null,
    is_final integer not null,
    primary key (job_id, location)
) without rowid;
create table facts (name text primary key, value real not null) without rowid;
"""


@dataclass(frozen=True, slots=True)
class ReceiptFacts:
    """What an image's receipt says.

    :param prompt: The prompt; None if there is none.
    :param cost: Credits that the job cost whoever paid for it; None if unknown.
    :param is_final: Whether the receipt was read, or does not exist; it need not be read again.
    """

    prompt: str | None
    cost: float | None
    is_final: bool


def to_json(value: Any) -> str:
    """Return JSON for the file; lone surrogates, which SQLite cannot store, stay escaped."""
    return json.dumps(value)


def fold(text: str) -> str:
    """Return text as it is compared in a search: without case."""
    return text.casefold()


def file_path() -> Path:
    """Return the file's path; several installations of Airflow may share the folder."""
    return cache_folder() / f"images-{database_id()}.sqlite3"


@contextmanager
def connect() -> Iterator[sqlite3.Connection]:
    """Open the file for one transaction; make it if it is missing, damaged or of another version."""
    path = file_path()
    try:
        connection = _open(path)
    except sqlite3.OperationalError:
        raise  # The file is locked or the disk is full, which says nothing about its content.
    except sqlite3.DatabaseError as error:
        _discard(path, str(error))
        connection = _open(path)
    try:
        with connection:
            yield connection
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError as error:
        connection.close()
        _discard(path, str(error))
        raise
    finally:
        connection.close()


def _open(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_SECONDS)
    try:
        connection.row_factory = sqlite3.Row
        if _version(connection) != _SCHEMA_VERSION:
            _create(connection)
        connection.execute("pragma synchronous = off")  # The data can be derived again.
    except BaseException:
        connection.close()
        raise
    return connection


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("pragma user_version").fetchone()[0])


def _create(connection: sqlite3.Connection) -> None:
    connection.execute("pragma journal_mode = wal")
    connection.execute("begin immediate")
    # Another process may have made it meanwhile.
    if _version(connection) != _SCHEMA_VERSION:
        for (name,) in connection.execute("select name from sqlite_master where type = 'table'").fetchall():
            connection.execute(f'drop table "{name}"')
        for statement in _SCHEMA.split(";"):
            connection.execute(statement)
        connection.execute(f"pragma user_version = {_SCHEMA_VERSION}")
    connection.commit()


def _discard(path: Path, reason: str) -> None:
    log.warning("The gallery's index %s is unreadable (%s) and is made again.", path, reason)
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def read_versions(connection: sqlite3.Connection, now: float) -> dict[tuple[str, str], str]:
    """Return the version of each indexed run, by DAG and run; an empty one if the run is to be read again."""
    rows = connection.execute("select *, coalesce(retry_at < ?, false) is_due from runs", [now])
    return {(row["dag_id"], row["run_id"]): "" if row["is_due"] else row["version"] for row in rows}


def unfinished_runs(connection: sqlite3.Connection) -> dict[int, tuple[str, str]]:
    """Return DAG and run by the run's number in Airflow, of the indexed runs that had not ended."""
    rows = connection.execute("select dag_run_id, dag_id, run_id from runs where not is_finished")
    return {row["dag_run_id"]: (row["dag_id"], row["run_id"]) for row in rows}


def read_fact(connection: sqlite3.Connection, name: str) -> float:
    """Return a number that processes share; 0 if it was never written."""
    row = connection.execute("select value from facts where name = ?", [name]).fetchone()
    return 0.0 if row is None else float(row["value"])


def write_fact(connection: sqlite3.Connection, name: str, value: float) -> None:
    """Write a number that processes share."""
    connection.execute("insert or replace into facts values (?, ?)", [name, value])


def remove_runs(connection: sqlite3.Connection, runs: Iterable[tuple[str, str]]) -> None:
    """Remove runs, and their images."""
    runs = list(runs)
    for table in ("images", "sums", "runs"):
        connection.executemany(f"delete from {table} where dag_id = ? and run_id = ?", runs)


def replace_run(
    connection: sqlite3.Connection, run: RunVersion, images: Sequence[GalleryImage], retry_at: float | None
) -> None:
    """Write a run and its images in place of what the index has of it.

    :param retry_at: Unix time from which the run is to be read again; None if all of it was read.
    """
    remove_runs(connection, [(run.dag_id, run.run_id)])
    connection.execute(
        "insert into runs values (?, ?, ?, ?, ?, ?, ?)",
        [
            run.dag_id,
            run.run_id,
            run.dag_run_id,
            run.version,
            run.last_active_at.timestamp(),
            run.is_finished,
            retry_at,
        ],
    )
    rows = (_image_row(run, position, image) for position, image in enumerate(images))
    connection.executemany(f"insert into images values ({', '.join('?' * 22)})", rows)
    connection.execute(
        "insert into sums select dag_id, run_id, day, model, state, count(*), sum(cost), sum(unknown_costs),"
        " sum(reused), sum(lost), sum(lost_cost) from images"
        " where dag_id = ? and run_id = ? group by day, model, state",
        [run.dag_id, run.run_id],
    )


def _image_row(run: RunVersion, position: int, image: GalleryImage) -> tuple[Any, ...]:
    prompt, cost = image.prompt, image.numeric("cost")
    is_lost = image.state in ("failed", "moderated") and cost != 0 and image.job_id is not None
    return (
        run.dag_id,
        run.run_id,
        position,
        image.task_id,
        image.map_index,
        image.number,
        image.job_id,
        image.location,
        image.model,
        image.state,
        image.created_at.timestamp(),
        image.created_at.astimezone(datetime.UTC).date().isoformat(),
        cost or 0,
        cost is None and image.job_id is not None,
        # An earlier attempt of the same run may have paid for it, which is no saving.
        bool(image.fields.get("reused")) and not cost,
        is_lost,
        (cost or 0) if is_lost else 0,
        prompt,
        None if prompt is None else fold(prompt),
        image.returned_at.timestamp(),
        image.planned_uri,
        to_json(dict(image.fields)),
    )


def image_of(row: sqlite3.Row) -> GalleryImage:
    """Return the image that a row of the table describes."""
    return GalleryImage(
        row["task_id"],
        row["map_index"],
        row["number"],
        json.loads(row["fields"]),
        datetime.datetime.fromtimestamp(row["returned_at"], datetime.UTC),
        planned_uri=row["planned_uri"],
    )


def images_without_receipt(connection: sqlite3.Connection, limit: int, retry_before: float) -> list[GalleryImage]:
    """Return images whose receipt is not known yet, newest first.

    :param retry_before: Unix time; receipts that could not be read are due again if that was earlier.
    """
    rows = connection.execute(
        "select i.* from images i left join receipts r on r.job_id = i.job_id and r.location = i.location"
        " where i.job_id is not null and i.location is not null and i.state != 'waiting'"
        " and (i.prompt is null or i.reused)"
        " and (r.job_id is null or (not r.is_final and r.read_at < ?))"
        " order by i.created_at desc limit ?",
        [retry_before, limit],
    )
    return [image_of(row) for row in rows]


def write_receipt(connection: sqlite3.Connection, image: GalleryImage, facts: ReceiptFacts, now: float) -> None:
    """Keep what an image's receipt says, for good if it is final."""
    folded = None if facts.prompt is None else fold(facts.prompt)
    values = [image.job_id, image.location, facts.prompt, folded, facts.cost, now, facts.is_final]
    connection.execute("insert or replace into receipts values (?, ?, ?, ?, ?, ?, ?)", values)
