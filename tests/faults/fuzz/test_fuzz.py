"""Hostile inputs to every reader: nothing but an error in words may come out. The long form: ``make fuzz``."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.faults.fuzz.edits import STANDING, edited
from tests.faults.fuzz.ground import Ground
from tests.faults.fuzz.sourcetargets import SOURCES
from tests.faults.fuzz.target import Target
from tests.faults.fuzz.targets import TARGETS
from tests.faults.memory import peak, peak_from_now

SLOW = {"names", "corpus.json", "corpus-manifest", "corpus-shards", "corpus-survey", "bundle-config", "store-shard"}
"""Readers of tens of milliseconds, which are given fewer inputs."""
_ROOM = 400  # MB that all inputs of a target may take together
_built: dict[str, Target] = {}


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    return Ground(tmp_path_factory.mktemp("ground"))


def target(name: str, ground: Ground) -> Target:
    if name not in _built:
        _built[name] = TARGETS[name](ground)
    return _built[name]


def tried(name: str, found: Target, content: bytes, folder: Path) -> None:
    try:
        found.run(content)
    except BaseException:
        (folder / f"{name}.failing").write_bytes(content)
        raise


@pytest.mark.parametrize("name", list(TARGETS))
def test_what_is_valid_is_read(name: str, ground: Ground) -> None:
    found = target(name, ground)
    assert sum(map(found.run, found.seeds)) > 0


@pytest.mark.parametrize("name", list(TARGETS))
def test_what_is_hostile_is_told_in_words(name: str, ground: Ground, tmp_path: Path) -> None:
    found = target(name, ground)
    before = peak_from_now()
    for content in STANDING[found.kind]:
        tried(name, found, content, tmp_path)

    @given(number=st.integers(0, 1 << 60), which=st.integers(0, len(found.seeds) - 1))
    @settings(
        max_examples=8 if name in SLOW else 100 if name in SOURCES else 40,
        derandomize=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        database=None,
    )
    def edits(number: int, which: int) -> None:
        choose = random.Random(number).randrange
        tried(name, found, edited(found.seeds[which], found.kind, choose), tmp_path)

    edits()
    assert peak() - before < _ROOM
