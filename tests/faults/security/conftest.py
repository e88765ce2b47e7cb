"""What a stranger would plant: code in every format that could carry some, and a place that nobody may reach."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tasks.runtime.provenance import content_key


@dataclass(frozen=True)
class _Payload:
    canary: str

    def __reduce__(self) -> Any:
        return (os.system, (f"touch {self.canary}",))


@dataclass(frozen=True)
class Hostile:
    """Payloads that make a file when anything runs them."""

    canary: Path

    @property
    def pickled(self) -> bytes:
        """What unpickling would run."""
        return pickle.dumps(_Payload(str(self.canary)))

    @property
    def yaml(self) -> str:
        """What an unsafe loader would run."""
        return f"!!python/object/apply:os.system ['touch {self.canary}']\n"

    @property
    def template(self) -> str:
        """What a template engine that is given this as its template would run."""
        return "{{ cycler.__init__.__globals__.os.system('touch " + str(self.canary) + "') }}"


@pytest.fixture
def hostile(tmp_path: Path) -> Iterator[Hostile]:
    """Payloads; after the test none of them may have run."""
    found = Hostile(tmp_path / "canary")
    yield found
    assert not found.canary.exists(), "code of a stranger was run"


@pytest.fixture
def corpus(tmp_path: Path, published: Callable[..., Path]) -> Path:
    """A small published corpus."""
    published(tmp_path / "given" / "corpus")
    return tmp_path / "given" / "corpus"


@pytest.fixture
def edit() -> Callable[..., None]:
    """Change a JSON record as a stranger would: its own digest fits again."""

    def change(path: Path, act: Callable[[dict[str, Any]], None]) -> None:
        content = json.loads(path.read_text())
        act(content)
        if "record_sha256" in content:
            content["record_sha256"] = content_key({k: v for k, v in content.items() if k != "record_sha256"})
        path.write_text(json.dumps(content))

    return change
