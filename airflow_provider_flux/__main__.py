"""``python -m airflow_provider_flux``: costs, models, credits."""

from __future__ import annotations

from airflow_provider_flux.cli.definition import make_parser

if __name__ == "__main__":
    arguments = make_parser().parse_args()
    arguments.run(arguments)
