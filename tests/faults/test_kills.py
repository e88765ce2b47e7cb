"""Long: kill -9 at many moments of one run, run it again each time, compare every byte. `make faults`."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PNGNOISE = Path(sys.executable).parent / "pngnoise"
KILLS = 8
pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def _tree(folder: Path) -> dict[str, str]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def test_kills_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    """The same corpus once undisturbed, once with many kills: equal trees, and no file left over."""
    environment = os.environ | {"PREFECT_HOME": str(tmp_path / ".prefect")}

    def start(output: Path) -> subprocess.Popen[bytes]:
        arguments = ["generate", "--output", str(output), "--scale", "4", "--shard", "2", "--json"]
        quiet = subprocess.DEVNULL
        return subprocess.Popen(
            [PNGNOISE, *arguments], env=environment, stdout=quiet, stderr=quiet, start_new_session=True
        )

    undisturbed = time.monotonic()
    assert start(tmp_path / "whole").wait() == 0
    duration = time.monotonic() - undisturbed
    moments, killed = random.Random(0), 0
    for _ in range(KILLS):
        run = start(tmp_path / "killed")
        try:
            run.wait(timeout=moments.uniform(0.2, 0.9) * duration)
        except subprocess.TimeoutExpired:
            os.killpg(run.pid, signal.SIGKILL)
            run.wait()
            killed += 1
    assert killed > 0
    assert start(tmp_path / "killed").wait() == 0
    assert _tree(tmp_path / "killed") == _tree(tmp_path / "whole")
