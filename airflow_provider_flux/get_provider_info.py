"""What Airflow reads about this provider: connection form, operators, links.

Airflow validates it at start, and a mistake here stops all of Airflow: keep ``tests/unit/test_provider_info.py``
green. Imports nothing, because Airflow reads it in every process.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_flux import __version__

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "schema", "port"],
    "relabeling": {"host": "Base URL", "password": "API key"},
    "placeholders": {"host": "https://api.cometapi.com"},
}

CONN_FIELDS: dict[str, Any] = {
    "gateway": {
        "label": "Gateway",
        "description": "Dialect of the API; empty: told from the base URL.",
        "schema": {"type": ["string", "null"], "enum": ["cometapi", "bfl"]},
    },
    "timeout": {
        "label": "HTTP timeout (seconds)",
        "description": "For connecting, or a pause within an answer.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "default": 30},
    },
    "allowed_delivery_networks": {
        "label": "Allowed delivery networks",
        "description": "Images may be fetched from here though it is not public, such as 198.18.0.0/15; with commas.",
        "schema": {"type": ["string", "null"]},
    },
}

CONFIG: dict[str, Any] = {
    "flux": {
        "description": "The gallery that shows what FLUX made.",
        "options": {
            "gallery_aws_conn_id": {
                "description": "Connection that the API server reads images in S3 with; empty: boto3's credentials.",
                "type": "string",
                "version_added": "0.1.0",
                "example": None,
                "default": "aws_default",
            },
            "gallery_cache_folder": {
                "description": "Folder that the API server keeps thumbnails in; empty: one of its own in /tmp.",
                "type": "string",
                "version_added": "0.1.0",
                "example": "/var/cache/airflow-flux",
                "default": "",
            },
        },
    }
}


def get_provider_info() -> dict[str, Any]:
    """Return the description of this provider, as ``provider_info.schema.json`` wants it."""
    return {
        "package-name": "airflow-provider-flux",
        "name": "FLUX",
        "description": "FLUX image generation: from a prompt to an image in your storage.",
        "state": "ready",
        "source-date-epoch": 1763856000,
        "versions": [__version__],
        "integrations": [{"integration-name": "FLUX", "external-doc-url": "https://docs.bfl.ml", "tags": ["service"]}],
        "hooks": [{"integration-name": "FLUX", "python-modules": ["airflow_provider_flux.hooks.flux"]}],
        "operators": [
            {
                "integration-name": "FLUX",
                "python-modules": ["airflow_provider_flux.operators.flux", "airflow_provider_flux.operators.batch"],
            }
        ],
        "triggers": [
            {
                "integration-name": "FLUX",
                "python-modules": ["airflow_provider_flux.triggers.flux", "airflow_provider_flux.triggers.pause"],
            }
        ],
        "transfers": [
            {
                "source-integration-name": "FLUX",
                "target-integration-name": "Amazon Simple Storage Service (S3)",
                "python-module": "airflow_provider_flux.transfers.flux_to_s3",
            }
        ],
        "task-decorators": [{"name": "flux", "class-name": "airflow_provider_flux.decorators.flux.flux_task"}],
        "extra-links": ["airflow_provider_flux.links.flux.FluxImageLink"],
        "config": CONFIG,
        "connection-types": [
            {
                "connection-type": "flux",
                "hook-class-name": "airflow_provider_flux.hooks.flux.FluxHook",
                "hook-name": "FLUX",
                "ui-field-behaviour": UI_FIELD_BEHAVIOUR,
                "conn-fields": CONN_FIELDS,
            }
        ],
    }
