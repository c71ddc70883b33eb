"""The plugin that adds the gallery to Airflow's UI."""
