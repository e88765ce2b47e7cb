"""The main job on local disks, which a preloaded library lets fail."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
WORDS = 2  # exit code of an error in words


def build_faulty_disk(compiler: str, folder: Path) -> str:
    """The library of faulty_disk.c, for LD_PRELOAD."""
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
