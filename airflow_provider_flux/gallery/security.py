"""The gallery's access checks, and the headers that limit what a browser may do with its responses."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from airflow.api_fastapi.app import get_auth_manager
from airflow.api_fastapi.auth.managers.models.resource_details import DagAccessEntity, DagDetails
from airflow.api_fastapi.core_api.security import requires_access_dag
from airflow.models.dag import DagModel
from fastapi import Depends, Response

# Checks the path's dag_id: Airflow 3.1 ignores one in the query string.
MAY_READ_DAG = Depends(requires_access_dag(method="GET", access_entity=DagAccessEntity.XCOM))

# Airflow embeds the pages in a frame.
PAGE_POLICY = (
    "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'self'; frame-ancestors 'self'"
)
# 'unsafe-inline' is for the page that the browser itself makes around an image opened in its own tab.
IMAGE_POLICY = "default-src 'none'; img-src 'self'; style-src 'unsafe-inline'; frame-ancestors 'self'; sandbox"


def readable_dag_ids(dag_ids: Iterable[str], user: Any) -> list[str]:
    """Return those of ``dag_ids`` whose XComs the user may read."""
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
    """Add the security headers that the response does not set itself, and return it."""
    for name, value in {
        "Content-Security-Policy": PAGE_POLICY,
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
    }.items():
        response.headers.setdefault(name, value)
    return response
