"""The commands ``costs``, ``models`` and ``credits``: for ``python -m airflow_provider_flux`` and ``airflow flux``."""
