"""Airflow's own SimpleAuthManager, with one user who may read one DAG only; its roles know no such thing."""

from __future__ import annotations

from typing import Any

from airflow.api_fastapi.auth.managers.simple.simple_auth_manager import SimpleAuthManager


class OneDagAuthManager(SimpleAuthManager):
    """The user ``gardener`` may read ``e2e_gallery`` and no other DAG."""

    def is_authorized_dag(self, *, user: Any, details: Any = None, **what: Any) -> bool:
        """As the role allows, and the DAG."""
        if user.get_name() == "gardener" and details and details.id not in (None, "e2e_gallery"):
            return False
        return bool(super().is_authorized_dag(user=user, details=details, **what))
