"""Hundreds of kills during every stage of the main job."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.campaigns.kills import Campaign
from tests.faults.test_kills import survived

KILLS = 52


@pytest.mark.timeout(7200)
@pytest.mark.parametrize("seed", range(4))
def test_many_kills_lose_nothing(campaign: Callable[[int], Campaign], seed: int) -> None:
    survived(campaign(seed), KILLS)
