"""Local stack without containers: Prefect server, S3-compatible server, workers."""
