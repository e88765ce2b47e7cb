"""Long: kill -9 at many moments, run the same command again each time, compare every byte. `make faults`."""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
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


def command(output: str, clean: str, cluster: str, part: str | None) -> list[str]:
    sizes = ["--crop", "32", "--shard", "16", "--scale", "2", "--json", "--cluster", cluster]
    parts = ["--parts", part] if part else []
    return [
        str(PNGNOISE),
        "generate",
        "--output",
        output,
        "--model",
        "heteroscedastic",
        "--clean",
        clean,
        *sizes,
        *parts,
    ]


@pytest.mark.parametrize(("kills", "remote"), [(50, False), (20, True)], ids=["local", "storage"])
def test_kills_of_flows_workers_and_runners_lose_nothing(
    kills: int, remote: bool, campaign: Callable, prefect_api: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    """One corpus, whose flow, Dask workers and runners of parts are killed by turns: equal to an undisturbed one.

    The shards last for about half of the kills; the others meet planning, the look at what is there, and publication.
    """
    output = f"{request.getfixturevalue('storage')}/killed" if remote else None
    prefect = {"PREFECT_API_URL": prefect_api, "PREFECT_HOME": str(tmp_path / ".prefect")}
    images, windows, draws = 2 * kills // 5, 64, 2
    one = campaign(command, seed=kills, images=images, output=output, **prefect)
    one.undisturbed()
    one.run(kills)
    one.tell()
    assert one.kills == kills
    assert one.differing() == []
    assert one.samples() == list(range(draws * images * windows))
