"""The web app that shows what FLUX made, in Airflow's UI."""
