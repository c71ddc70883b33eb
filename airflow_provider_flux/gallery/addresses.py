"""The paths of the gallery's pages, and of the pages of Airflow's UI that they link to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import quote, unquote


@dataclass(frozen=True, slots=True)
class ImageKey:
    """Names one image by where it is in a task's result, never by a file.

    :param number: Its position in the result of the task instance.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int
    number: int

    def __str__(self) -> str:
        """Return the key as one value of a form; see :meth:`parse`."""
        names = (quote(name, safe="") for name in (self.dag_id, self.run_id, self.task_id))
        return "/".join([*names, str(self.map_index), str(self.number)])

    @classmethod
    def parse(cls, text: str) -> ImageKey:
        """Return the key that a form sent.

        :raises ValueError: if it is not one.
        """
        dag_id, run_id, task_id, map_index, number = text.split("/")
        return cls(unquote(dag_id), unquote(run_id), unquote(task_id), int(map_index), int(number))


@dataclass(frozen=True, slots=True)
class Addresses:
    """The paths below which the gallery and Airflow's UI are served.

    :param root: Path of the gallery, without a slash at the end.
    """

    root: str

    @property
    def static(self) -> str:
        """The folder of style sheets, scripts and icons."""
        return f"{self.root}/static"

    @property
    def airflow(self) -> str:
        """The path of Airflow's UI, without a slash at the end."""
        return self.root.rpartition("/")[0]

    def run(self, dag_id: str, run_id: str) -> str:
        """Return the path of a run's images."""
        return f"{self.root}/{_run(dag_id, run_id)}"

    def task(self, dag_id: str, run_id: str, task_id: str, map_index: int | None) -> str:
        """Return the path of the images of a task instance; ``map_index`` None: of all its mapped instances."""
        return f"{self.run(dag_id, run_id)}/tasks/{quote(task_id, safe='')}/{_index(map_index)}"

    def group(self, dag_id: str, run_id: str, group_id: str, map_index: int | None) -> str:
        """Return the path of the images of a task group; ``map_index`` None: of all its mapped instances."""
        return f"{self.run(dag_id, run_id)}/groups/{quote(group_id, safe='')}/{_index(map_index)}"

    def image(self, key: ImageKey) -> str:
        """Return the path of a stored image."""
        return f"{self.task(key.dag_id, key.run_id, key.task_id, key.map_index)}/images/{key.number}"

    def airflow_run(self, dag_id: str, run_id: str) -> str:
        """Return the path of Airflow's page of a run."""
        return f"{self.airflow}/{_run(dag_id, run_id)}"

    def airflow_task(self, dag_id: str, run_id: str, task_id: str, map_indexes: Sequence[int] = ()) -> str:
        """Return the path of Airflow's page of a task: the log of one instance, or the list of several mapped ones."""
        mapped = "/mapped" if map_indexes else ""
        mapped += f"/{map_indexes[0]}" if len(map_indexes) == 1 else ""
        return f"{self.airflow_run(dag_id, run_id)}/tasks/{quote(task_id, safe='')}{mapped}"


def _index(map_index: int | None) -> str:
    return quote("{MAP_INDEX}") if map_index is None else str(map_index)


def _run(dag_id: str, run_id: str) -> str:
    return f"dags/{quote(dag_id, safe='')}/runs/{quote(run_id, safe='')}"
