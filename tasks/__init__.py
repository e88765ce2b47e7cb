"""Tasks: what is done to data, as plain functions with thin Prefect wrappers."""
