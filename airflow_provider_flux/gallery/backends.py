"""Results that an XCom backend keeps outside of Airflow's database, which then has only a reference to each.

Values of the object storage backend are read here: as plain JSON, up to a size, and only below the configured path, in
the DAG's own folder. Any other backend's own code reads the results of FLUX tasks. Both have a thread pool of their
own, since that code may hang, and seconds to finish.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any
from urllib.parse import quote

from airflow.configuration import conf

from airflow_provider_flux.gallery.queries import Selection
from airflow_provider_flux.gallery.results import TaskResult, failed_image, images_in, manifest_reference, read_value
from airflow_provider_flux.gallery.shape import MAX_LENGTH

log = logging.getLogger(__name__)

TIMEOUT_SECONDS = 10.0
"""How long a page waits for all of its values."""
MAX_BYTES = 16 * 1024 * 1024
"""Largest value of a FLUX task."""
_MAX_OTHERS = 100
"""Number of values of other tasks that are read for a page; they cannot be selected by what they look like."""
_pool = ThreadPoolExecutor(4, thread_name_prefix="flux-xcom-backend")


@dataclass(frozen=True, slots=True)
class Resolved:
    """Results, with the values that the backend keeps.

    :param results: Those that are known.
    :param unreadable: Those that the backend did not return.
    :param backend: The backend's class, as a text; None for Airflow's own, which keeps everything in the database.
    """

    results: Sequence[TaskResult]
    unreadable: Sequence[TaskResult] = ()
    backend: str | None = None


def object_storage_path() -> str | None:
    """Return where the object storage backend keeps values; None if another backend is configured."""
    return _configured_path() if _is_object_storage(_backend()) else None


async def resolve(selection: Selection, results: Sequence[TaskResult]) -> Resolved:
    """Return the results with the values that the configured backend keeps."""
    backend = _backend()
    if backend is None:
        return Resolved(results)
    others = [result for result in results if not result.uses_flux and _is_reference(result)][_MAX_OTHERS:]
    results = [result for result in results if result not in others]
    loop = asyncio.get_running_loop()
    calls = {
        number: loop.run_in_executor(_pool, _read, backend, selection, result)
        for number, result in enumerate(results)
        if _is_reference(result)
    }
    if calls:
        await asyncio.wait(calls.values(), timeout=TIMEOUT_SECONDS)
    known, unreadable = [], []
    for number, result in enumerate(results):
        if number not in calls:
            known.append(result)
        elif calls[number].done() and calls[number].exception() is None:
            known.append(replace(result, value=calls[number].result()))
        else:
            _give_up(calls[number], result)
            unreadable.append(result)
    return Resolved(known, unreadable, f"{backend.__module__}.{backend.__qualname__}")


def _give_up(call: asyncio.Future[Any], result: TaskResult) -> None:
    error = call.exception() if call.done() else "it took too long"
    call.cancel()
    log.warning("The XCom backend did not return the result of %r: %s", result.task_id, error)


def _is_reference(result: TaskResult) -> bool:
    """Return whether the value may stand for another one: a text, or a dict that describes nothing itself."""
    if isinstance(result.value, dict):
        # Backends restore serialized objects, which would import a class that the task names.
        is_object = bool(result.value.keys() & {"__classname__", "__type"})
        is_known = any(images_in(result)) or manifest_reference(result.value) or failed_image(result)
        return not is_object and not is_known
    return isinstance(result.value, str) and bool(result.value)


def _backend() -> Any:
    """Return the configured backend; None if it is Airflow's own."""
    from airflow.sdk.bases.xcom import BaseXCom
    from airflow.sdk.execution_time.xcom import resolve_xcom_backend

    backend = resolve_xcom_backend()
    return None if backend is BaseXCom or backend.deserialize_value is BaseXCom.deserialize_value else backend


def _is_object_storage(backend: Any) -> bool:
    if backend is None:
        return False
    try:
        from airflow.providers.common.io.xcom.backend import XComObjectStorageBackend
    except ImportError:
        return False
    return getattr(backend, "deserialize_value", None) is XComObjectStorageBackend.deserialize_value


def _configured_path() -> str:
    return str(conf.get("common.io", "xcom_objectstorage_path", fallback="")).rstrip("/")


def _read(backend: Any, selection: Selection, result: TaskResult) -> Any:
    if _is_object_storage(backend):
        limit = MAX_BYTES if result.uses_flux else MAX_LENGTH
        return _read_object(result.value, selection.dag_id, limit)
    if not result.uses_flux:
        return None
    names = {"dag_id": selection.dag_id, "run_id": selection.run_id, "timestamp": result.returned_at}
    row = SimpleNamespace(
        key=result.key, task_id=result.task_id, map_index=result.map_index, value=result.value, **names
    )
    value = backend.deserialize_value(row)
    if value == result.value:
        raise ValueError("it returned the reference itself")
    return read_value(value)


def _read_object(uri: Any, dag_id: str, limit: int) -> Any:
    """Return the JSON in a file of the object storage backend; a text that is no such file, as it is."""
    from airflow.sdk import ObjectStoragePath

    base = _configured_path()
    if not isinstance(uri, str) or not base or not uri.startswith(f"{base}/"):
        return uri
    folders = uri.removeprefix(f"{base}/").split("/")[:-1]
    if ".." in folders or not {dag_id, quote(dag_id, safe="")} & set(folders):
        raise ValueError("it is not in the DAG's folder")
    with ObjectStoragePath(uri).open(mode="rb", compression="infer") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ValueError(f"it is larger than {limit} bytes")
    return read_value(json.loads(data))
