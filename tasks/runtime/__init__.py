"""How a task runs and reports: Prefect steps, clusters, devices, progress, artifacts, provenance, configuration files.

Belongs here: whatever every package needs to run work. Does not: file formats, storage access, domain types.
"""
