"""Kill -9 of a runner, of Dask workers and of runners of parts, in short: what `make faults` does fifty times."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

KILLS = 5
DRAWS = 2  # of runner.py
pytestmark = pytest.mark.timeout(300)


def command(output: str, clean: str, cluster: str, part: str | None) -> list[str]:
    program = str(Path(__file__).with_name("runner.py"))
    return [sys.executable, program, output, clean, cluster, *([part] if part else [])]


def test_a_few_kills_lose_nothing(campaign: Callable) -> None:
    images, windows = 6, 64
    one = campaign(command, seed=5, images=images)
    one.undisturbed()
    one.run(KILLS)
    one.tell()
    assert one.kills == KILLS
    assert one.differing() == []
    assert one.samples() == list(range(DRAWS * images * windows))
