"""The main job on disks that fail: nothing is lost, nothing wrong is published, and what is told names a file."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import yaml

from tests.faults.stages import training

HERE = Path(__file__).parent
TRIES, WORDS = 40, 2
LETTERS = {"o": "open", "r": "read", "w": "write", "f": "fsync"}
RESULTS = os.environ.get("PNGNOISE_FAULT_RESULTS")
pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def shim(folder: Path) -> str:
    """The disk that fails, as a library to preload."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler to make the failing disk with")
    library = folder / "faulty_disk.so"
    command = [compiler, "-O1", "-shared", "-fPIC", "-o", str(library), str(HERE / "faulty_disk.c"), "-ldl"]
    subprocess.run(command, check=True)
    return str(library)


class Job:
    """Runs of the job in one folder."""

    def __init__(self, images: str, folder: Path, configuration: Path) -> None:
        self.folder, self._command = folder, [str(HERE / "local_job.py"), images, str(folder), str(configuration)]
        self.told: list[str] = []

    def run(self, **faults: str) -> bool:
        """Whether it came to its end."""
        done = subprocess.run(
            [sys.executable, *self._command], env=os.environ | faults, capture_output=True, text=True, check=False
        )
        assert done.returncode in (0, WORDS), done.stderr[-3000:]
        if done.returncode:
            self.told.append(done.stderr)
        return done.returncode == 0

    def tree(self) -> dict[str, str]:
        """sha256 of what is published; of the training the weights, as its record tells how long it took."""
        files = {str(p.relative_to(self.folder)): p for p in self.folder.rglob("*") if p.is_file()}
        names = [n for n in files if not n.startswith("training/") or n.endswith("bundle/model.safetensors")]
        return {
            n: hashlib.sha256(files[n].read_bytes()).hexdigest()
            for n in names
            if not n.endswith(("sources.json", "failed.json"))
        }


@pytest.fixture(scope="module")
def configuration(folder: Path) -> Path:
    place = folder / "training.yaml"
    place.write_text(yaml.safe_dump(training("replaced", steps=4)))
    return place


@pytest.fixture(scope="module")
def calm(images: str, folder: Path, configuration: Path, environment: pytest.MonkeyPatch) -> dict[str, str]:
    environment.setenv("PYTHONPATH", str(HERE.parents[1]))
    job = Job(images, folder / "calm", configuration)
    assert job.run()
    return job.tree()


FAULTS = [
    pytest.param(errno.EIO, "read", 1, id="errors on reading", marks=pytest.mark.slow),
    pytest.param(errno.EIO, "write fsync", 20, id="errors on writing"),
    pytest.param(errno.ENOSPC, "write", 30, id="full disk", marks=pytest.mark.slow),
]


@pytest.mark.parametrize(("number", "calls", "permille"), FAULTS)
def test_a_failing_disk_costs_time_only(
    number: int,
    calls: str,
    permille: int,
    shim: str,
    calm: dict[str, str],
    images: str,
    folder: Path,
    configuration: Path,
    tmp_path: Path,
) -> None:
    job, log = Job(images, tmp_path / "disk", configuration), tmp_path / "log"
    faults = {"LD_PRELOAD": shim, "FAULT_ROOT": str(tmp_path / "disk"), "FAULT_ERRNO": str(number)}
    faults |= {"FAULT_CALLS": calls, "FAULT_PERMILLE": str(permille), "FAULT_LOG": str(log)}
    done = any(job.run(**faults, FAULT_SEED=str(seed)) for seed in range(TRIES))
    counted = Counter(LETTERS[letter] for letter in (log.read_text() if log.exists() else ""))
    print(f"\n{os.strerror(number)}: {dict(counted)} in {len(job.told) + 1} starts")
    assert counted.total() > 0
    assert done or job.run()
    assert job.tree() == calm
    for told in job.told:
        assert str(tmp_path / "disk") in told, told


def test_a_read_only_disk_is_told_at_once(
    shim: str, calm: dict[str, str], images: str, configuration: Path, tmp_path: Path
) -> None:
    job = Job(images, tmp_path / "disk", configuration)
    faults = {"LD_PRELOAD": shim, "FAULT_ROOT": str(tmp_path / "disk"), "FAULT_ERRNO": str(errno.EROFS)}
    assert not job.run(**faults, FAULT_CALLS="open", FAULT_PERMILLE="1000")
    assert "read-only file system" in job.told[0]
    assert str(tmp_path / "disk") in job.told[0]
    assert job.run()
    assert job.tree() == calm
