"""A small corpus by a fast baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tasks.synthesis import CorpusParameters


@pytest.fixture
def parameters(patches: str, folders: Any) -> Callable[..., CorpusParameters]:
    """Parameters of a corpus of 36 clean patches in shards of 8; keywords change fields."""

    def make(output: Any, **changes: Any) -> CorpusParameters:
        fields = {"model": "heteroscedastic", "references": patches, "clean": str(folders[0] / "clean")}
        return CorpusParameters(**(fields | {"output": str(output), "crop": 32, "shard": 8} | changes))

    return make
