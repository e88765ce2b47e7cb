"""Kill -9 of flows, workers, Dask workers, the S3 server and Prefect's during every stage of the main job."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.campaign import Campaign

FEW, MANY = 5, 52
RESULTS = os.environ.get("PNGNOISE_FAULT_RESULTS")
"""A folder for the tables of the long form."""


def survived(one: Campaign, kills: int) -> None:
    one.undisturbed()
    try:
        one.run(kills)
    finally:
        told = one.tell()
        print(f"\n{told}")
        if RESULTS:
            Path(RESULTS).mkdir(parents=True, exist_ok=True)
            (Path(RESULTS) / f"kills-{one.seed}.md").write_text(told + "\n")
    assert one.kills == kills
    assert one.wrong == []
    assert one.figures["publications compared"] > 0


@pytest.mark.timeout(900)
def test_a_few_kills_lose_nothing(campaign: Callable[[int], Campaign]) -> None:
    survived(campaign(5), FEW)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(4))
def test_many_kills_lose_nothing(campaign: Callable[[int], Campaign], seed: int) -> None:
    survived(campaign(seed), MANY)
