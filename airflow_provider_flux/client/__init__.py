"""The FLUX API, spoken without Airflow."""
