"""The gallery's addresses: stable, for approvals, messages and everything else that shows an image to people.

Whoever opens one logs in to Airflow, and needs read access to the DAG's XComs.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote, urlsplit

from airflow_provider_flux.identity import TaskIdentity
from airflow_provider_flux.returned_image import ReturnedImage, find_returned_image

PREFIX = "/flux"
"""Path of the gallery below Airflow's own."""


def image_url(result: Any, number: Any = None, *, thumbnail: bool = False, relative: bool = False) -> str:
    """Return the address at which the gallery shows an image to users of Airflow.

    Also a macro: ``{{ macros.flux.image_url(ti.xcom_pull(task_ids="generate"), thumbnail=True) }}``. For people who
    cannot log in to Airflow, see :meth:`.FluxHook.presigned_url` and :meth:`.FluxHook.read_image`.

    :param result: What a FLUX operator returned: FluxGenerateOperator or ``@task.flux``, FluxToS3Operator,
        FluxGenerateBatchOperator, or the list of a mapped task.
    :param number: Which image of a batch, or result of a list: its position from 0, or its line of the batch's
        manifest. Not needed if there is only one.
    :param thumbnail: Whether to return the address of a small copy (WebP) instead of the stored file.
    :param relative: Whether to leave out Airflow's scheme and host, as for a page of Airflow itself. They are those of
        ``[api] base_url``; without that option every address is relative.
    :raises ValueError: if the arguments do not name one image that is stored.
    """
    image = find_returned_image(result, number)
    path = f"{task_path(_task_of(image))}/images/{image.number}{'/thumbnail' if thumbnail else ''}"
    return f"{base_url(relative=relative)}{path}{_version(image)}"


def base_url(*, relative: bool = False) -> str:
    """Return the gallery's address, without a slash at its end.

    :param relative: Whether to leave out the scheme and host.
    """
    from airflow.configuration import conf

    url = conf.get("api", "base_url", fallback="/")
    return (urlsplit(url).path if relative else url).rstrip("/") + PREFIX


def task_path(task: TaskIdentity) -> str:
    """Return the path of a task instance in the gallery."""
    names = ("dags", task.dag_id, "runs", task.run_id, "tasks", task.task_id, str(task.map_index))
    return "".join(f"/{quote(name or '', safe='')}" for name in names)


def _task_of(image: ReturnedImage) -> TaskIdentity:
    task = TaskIdentity.from_dict(image.result.get("task_instance"))
    if task is None or not (task.dag_id and task.run_id and task.task_id):
        kind = "is a line of a manifest" if "index" in image.result else "was returned by an earlier version"
        raise ValueError(
            f"The result does not say which task returned it (task_instance), as if it {kind}. Pass what the operator "
            f"returned; for an image of a batch, with its number."
        )
    if not image.is_in_batch and not image.result.get("uri"):
        raise ValueError(
            f"The image of job {image.result['id']} is not stored, so the gallery cannot show it. Set output_uri, or "
            f"pass what FluxToS3Operator returned."
        )
    return task


def _version(image: ReturnedImage) -> str:
    """Return the hash that lets a browser keep the image, if the result has it."""
    sha256 = image.result.get("sha256")
    return f"?v={sha256[:16]}" if isinstance(sha256, str) and not image.is_in_batch else ""
