"""What we add to Airflow's user interface."""
