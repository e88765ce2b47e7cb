"""The servers, workers and disks of the short forms in tests/faults."""

from tests.faults.conftest import (
    calm_disk,
    campaign,
    environment,
    faulty_disk,
    folder,
    images,
    prefect,
    s3,
    small_training,
)

__all__ = [
    "calm_disk",
    "campaign",
    "environment",
    "faulty_disk",
    "folder",
    "images",
    "prefect",
    "s3",
    "small_training",
]
