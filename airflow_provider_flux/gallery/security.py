"""Who may see it, and what a browser may do with it."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends, Response

# Judges by the path's dag_id: on Airflow 3.1 it does not see one in the query string.
MAY_READ_DAG = Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))

# Airflow shows the pages in a frame of its own.
PAGE_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
# 'unsafe-inline' is for the browser's own page around an image that is opened by itself.
IMAGE_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"


def permitted(dag_ids: Iterable[str], user: Any) -> list[str]:
    """Return those DAGs whose XComs this user may read."""
    manager = get_auth_manager()
    return [
        dag_id
        for dag_id in dag_ids
        if manager.is_authorized_dag(
            method="GET",
            access_entity=DagAccessEntity.XCOM,
            details=DagDetails(id=dag_id, team_name=DagModel.get_team_name(dag_id)),
            user=user,
        )
    ]


def add_headers(response: Response) -> Response:
    """Give an answer the headers that keep it harmless."""
    for name, value in {
        "Content-Security-Policy": PAGE_POLICY,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }.items():
        response.headers.setdefault(name, value)
    return response
