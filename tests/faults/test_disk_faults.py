"""The main job on disks that fail: nothing is lost, nothing wrong is published, and what is told names a file."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from tests.faults.disk import Job

pytestmark = pytest.mark.timeout(900)


def test_a_read_only_disk_is_told_at_once(
    faulty_disk: str, calm_disk: dict[str, str], images: str, small_training: Path, tmp_path: Path
) -> None:
    job = Job(images, tmp_path / "disk", small_training)
    faults = {"LD_PRELOAD": faulty_disk, "FAULT_ROOT": str(tmp_path / "disk"), "FAULT_ERRNO": str(errno.EROFS)}
    assert not job.run(**faults, FAULT_CALLS="open", FAULT_PERMILLE="1000")
    assert "the file system is read-only" in job.told[0]
    assert str(tmp_path / "disk") in job.told[0]
    assert job.run()
    assert job.tree() == calm_disk
