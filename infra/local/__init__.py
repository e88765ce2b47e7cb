"""The whole stack on one machine, without containers: Prefect server, S3-compatible server, workers."""
