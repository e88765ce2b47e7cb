"""Execution and reporting of tasks: Prefect steps, clusters, devices, progress, artifacts, provenance, configuration.

Belongs here: what every package needs to run work. Does not: file formats, storage access, domain types.
"""
