"""The web app that shows FLUX images in Airflow's UI."""
