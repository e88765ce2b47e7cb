"""The main job on object storage: faults of each kind alone, and ten seeds of all kinds at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.faults.proxy import FAULTS
from tests.faults.test_storage_faults import (
    SHARE,
    bundle,
    calm,
    check_told,
    disturbed,
    server,
    stored_images,
    survive,
)

RATES = {"time-out": 0.01, "error 500": 0.05, "SlowDown": 0.05, "stale listing": 1.0}
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_of_one_kind_changes_nothing(name: str, disturbed: Callable) -> None:
    proxy, job = disturbed({name: RATES.get(name, 0.1)}, 1, name.replace(" ", "-"))
    assert proxy.counted[name] > 0
    check_told(job)


@pytest.mark.parametrize("seed", range(10))
def test_all_faults_at_once_change_nothing(seed: int, disturbed: Callable) -> None:
    survive(SHARE, seed, disturbed)
