"""Kill -9 of flows, workers, Dask workers, the S3 server and Prefect's during every stage of the main job."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.campaigns.kills import Campaign
from tests.faults.results import keep

FEW = 2


def survived(one: Campaign, kills: int) -> None:
    one.undisturbed()
    try:
        one.run(kills)
    finally:
        keep("kills.md", one.tell())
    assert one.kills == kills
    assert one.wrong == []
    assert one.metrics["publications compared"] > 0


@pytest.mark.timeout(900)
def test_a_few_kills_lose_nothing(campaign: Callable[[int], Campaign]) -> None:
    survived(campaign(5), FEW)
