"""Links on a task in the Airflow UI."""
