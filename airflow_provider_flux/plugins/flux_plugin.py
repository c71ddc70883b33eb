"""FluxPlugin: the gallery's tabs and page in Airflow's UI, and the macro for its addresses.

Every component of Airflow imports this module, so it imports as little as possible; the app is created on the first
request.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_flux.gallery_urls import PREFIX, base_url, image_url

# Airflow's pages use the addresses unchanged, so they must start with the path that Airflow is served from.
BASE = base_url(relative=True)

ICONS = {"icon": f"{BASE}/static/icon.svg", "icon_dark_mode": f"{BASE}/static/icon-dark.svg"}


class GalleryApp:
    """The gallery's ASGI app, created on the first request."""

    @cached_property
    def _app(self) -> Any:
        from airflow_provider_flux.gallery.app import create_app

        return create_app()

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Pass a request on to the app."""
        await self._app(scope, receive, send)


class FluxPlugin(AirflowPlugin):
    """Adds the gallery to Airflow's pages of a DAG run and of a task instance, and to the navigation.

    Templates have ``macros.flux.image_url``.
    """

    name = "flux"
    macros: list[Any] = [image_url]  # noqa: RUF012 - as in AirflowPlugin
    fastapi_apps: list[Any] = [{"name": "FLUX gallery", "app": GalleryApp(), "url_prefix": PREFIX}]  # noqa: RUF012 - as in AirflowPlugin
    external_views: list[Any] = [  # noqa: RUF012 - as in AirflowPlugin
        {
            "name": "FLUX Images",
            "href": f"{BASE}/",
            **ICONS,
            "destination": "nav",
            "category": "browse",
            "url_route": "flux",
        },
        {
            "name": "FLUX Costs",
            "href": f"{BASE}/costs",
            **ICONS,
            "destination": "nav",
            "category": "browse",
            "url_route": "flux_costs",
        },
        {
            "name": "Images",
            **ICONS,
            "href": f"{BASE}/dags/{{DAG_ID}}/runs/{{RUN_ID}}",
            "destination": "dag_run",
            "url_route": "flux_run_images",
        },
        {
            "name": "Images",
            **ICONS,
            "href": f"{BASE}/dags/{{DAG_ID}}/runs/{{RUN_ID}}/tasks/{{TASK_ID}}/{{MAP_INDEX}}",
            "destination": "task_instance",
            "url_route": "flux_task_images",
        },
    ]
