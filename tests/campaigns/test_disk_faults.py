"""The main job on disks that fail now and then: nothing is lost, nothing wrong is published."""

from __future__ import annotations

import errno
import os
from collections import Counter
from pathlib import Path

import pytest

from tests.faults.disk import Job
from tests.faults.results import keep

TRIES = 40
LETTERS = {"o": "open", "r": "read", "w": "write", "f": "fsync", "l": "link", "m": "rename"}
pytestmark = pytest.mark.timeout(900)
FAULTS = [
    pytest.param(errno.EIO, "read", 1, id="errors on reading"),
    pytest.param(errno.EIO, "write fsync link move", 20, id="errors on writing"),
    pytest.param(errno.ENOSPC, "write", 30, id="full disk"),
]


@pytest.mark.parametrize(("number", "calls", "permille"), FAULTS)
def test_a_failing_disk_costs_time_only(
    number: int,
    calls: str,
    permille: int,
    faulty_disk: str,
    calm_disk: dict[str, str],
    images: str,
    small_training: Path,
    tmp_path: Path,
) -> None:
    job, log = Job(images, tmp_path / "disk", small_training), tmp_path / "log"
    faults = {"LD_PRELOAD": faulty_disk, "FAULT_ROOT": str(tmp_path / "disk"), "FAULT_ERRNO": str(number)}
    faults |= {"FAULT_CALLS": calls, "FAULT_PERMILLE": str(permille), "FAULT_LOG": str(log)}
    done = any(job.run(**faults, FAULT_SEED=str(seed)) for seed in range(TRIES))
    counted = Counter(LETTERS[letter] for letter in (log.read_text() if log.exists() else ""))
    keep("disks.md", f"{os.strerror(number)}: {dict(counted)} in {len(job.told) + 1} starts")
    assert counted.total() > 0
    assert done or job.run()
    assert job.tree() == calm_disk
    for told in job.told:
        assert str(tmp_path / "disk") in told, told
