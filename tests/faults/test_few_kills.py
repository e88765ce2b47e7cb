"""Kill -9 of a runner, of Dask workers and of runners of parts, in short: what `make faults` does fifty times."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

KILLS = 5
pytestmark = pytest.mark.timeout(300)


def command(output: str, clean: str, cluster: str, part: str | None) -> list[str]:
    program = str(Path(__file__).with_name("runner.py"))
    return [sys.executable, program, output, clean, cluster, *([part] if part else [])]


def test_a_few_kills_lose_nothing(campaign: Callable) -> None:
    kills = campaign(command, seed=5, images=6)
    kills.undisturbed()
    kills.run(KILLS)
    kills.check()
