"""The command ``credits``."""

from __future__ import annotations

import argparse

from airflow_provider_flux.cli.running import without_logs


@without_logs
def run(arguments: argparse.Namespace) -> str:
    """Return the credits that are left, with their value in US dollars."""
    from airflow_provider_flux.client.catalogue.prices import format_cost
    from airflow_provider_flux.hooks.flux import FluxHook

    return f"{format_cost(FluxHook(arguments.conn_id).credits())}\n"
