"""The images that a user has selected, as a form sends them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Query

from airflow_provider_flux.gallery.addresses import ImageKey
from airflow_provider_flux.gallery.security import readable_dag_ids

MAX_SELECTED = 500


def _keys(image: Annotated[list[str] | None, Query()] = None) -> list[ImageKey]:
    try:
        keys = list(dict.fromkeys(map(ImageKey.parse, image or [])))
    except ValueError:
        raise HTTPException(422, "The address names an image in a way that the gallery does not know.") from None
    if len(keys) > MAX_SELECTED:
        raise HTTPException(422, f"Select at most {MAX_SELECTED} images.")
    return keys


KeysDep = Annotated[list[ImageKey], Depends(_keys)]


def check_access(keys: Sequence[ImageKey], user: Any) -> None:
    """Check that the user may read the XComs of each image's DAG.

    :raises HTTPException: if not, as for a page of that DAG.
    """
    dag_ids = {key.dag_id for key in keys}
    if dag_ids - set(readable_dag_ids(dag_ids, user)):
        raise HTTPException(403, "Forbidden")
