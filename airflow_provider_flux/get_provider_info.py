"""The description of this provider that Airflow reads: connection form, operators, links, options.

Airflow validates it at start-up and does not start if it is invalid; ``tests/unit/test_provider_info.py`` checks it.
It imports nothing but the version, because every process of Airflow reads it.
"""

from __future__ import annotations

from typing import Any

from airflow_provider_flux import __version__

UI_FIELD_BEHAVIOUR: dict[str, Any] = {
    "hidden-fields": ["login", "schema"],
    "relabeling": {"host": "Base URL", "password": "API key"},
    # Without a stored port, the Test button of Airflow 3.3 asks for port 0 and is refused, because the two differ.
    "placeholders": {"host": "https://api.cometapi.com", "port": "0: as in the base URL (for the Test button)"},
}

CONN_FIELDS: dict[str, Any] = {
    "gateway": {
        "label": "Gateway",
        "description": "API dialect. Leave empty to infer it from the base URL.",
        "schema": {"type": ["string", "null"], "enum": ["cometapi", "bfl"]},
    },
    "timeout": {
        "label": "HTTP timeout (seconds)",
        "description": "Connect and read timeout, in seconds.",
        "schema": {"type": ["integer", "null"], "minimum": 1, "default": 30},
    },
    "allowed_delivery_networks": {
        "label": "Allowed delivery networks",
        "description": "Private networks that images may be downloaded from, comma-separated, such as 198.18.0.0/15.",
        "schema": {"type": ["string", "null"]},
    },
    "budget": {
        "label": "Budget",
        "description": "What all tasks may spend, such as 5000/month (credits) or $50/week. Needs a budget URI.",
        "schema": {"type": ["string", "null"]},
    },
    "budget_uri": {
        "label": "Budget URI",
        "description": "Where the ledgers of budgets are, such as s3://bucket/flux-budget.",
        "schema": {"type": ["string", "null"]},
    },
}

CONFIG: dict[str, Any] = {
    "flux": {
        "description": "The gallery of FLUX images in Airflow's UI.",
        "options": {
            "gallery_aws_conn_id": {
                "description": "Connection for reading images from S3. Leave empty to use boto3's own credentials.",
                "type": "string",
                "version_added": "0.1.0",
                "example": None,
                "default": "aws_default",
            },
            "gallery_cache_folder": {
                "description": "Folder for cached thumbnails. Leave empty to use a folder in /tmp.",
                "type": "string",
                "version_added": "0.1.0",
                "example": "/var/cache/airflow-flux",
                "default": "",
            },
        },
    }
}


def get_provider_info() -> dict[str, Any]:
    """Return the description of this provider, as ``provider_info.schema.json`` defines it."""
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
        "cli": ["airflow_provider_flux.cli.definition.airflow_commands"],
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
