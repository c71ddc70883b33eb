"""What images cost: records from receipts or from Airflow's database, and reports over them."""
