"""Real servers on 127.0.0.1 for the tests and for ``make demo``: SeaweedFS (S3) and a whole Airflow."""
