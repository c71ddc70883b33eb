"""TaskIdentity: which task asks for an image, and pays for it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from airflow.sdk import Context


@dataclass(frozen=True, slots=True)
class TaskIdentity:
    """The identity that all attempts of one task instance share."""

    # A receipt whose task is not exactly this names no task that could be compared.
    __pydantic_config__: ClassVar[dict[str, Any]] = {"extra": "forbid"}

    dag_id: str | None = None
    task_id: str | None = None
    run_id: str | None = None
    map_index: int = -1

    def is_same_run(self, other: TaskIdentity) -> bool:
        """Return whether this is the same task of the same run; the map index may change between attempts."""
        return (self.dag_id, self.task_id, self.run_id) == (other.dag_id, other.task_id, other.run_id)

    def __str__(self) -> str:
        return f"task {self.task_id} of DAG {self.dag_id}, run {self.run_id}"

    def to_dict(self) -> dict[str, Any]:
        """Return flat JSON that :meth:`from_dict` reads back."""
        return {"dag_id": self.dag_id, "task_id": self.task_id, "run_id": self.run_id, "map_index": self.map_index}

    @classmethod
    def from_dict(cls, data: Any) -> TaskIdentity | None:
        """Return the identity that ``data`` describes; None if it describes none."""
        if not isinstance(data, Mapping):
            return None
        dag_id, task_id, run_id = (data.get(name) for name in ("dag_id", "task_id", "run_id"))
        map_index = data.get("map_index", -1)
        if type(map_index) is not int or not all(isinstance(name, str | None) for name in (dag_id, task_id, run_id)):
            return None
        return cls(dag_id, task_id, run_id, map_index)


def task_identity(context: Context) -> TaskIdentity:
    """Return the identity of the running task instance."""
    ti = context["ti"]
    return TaskIdentity(ti.dag_id, ti.task_id, ti.run_id, -1 if ti.map_index is None else ti.map_index)
