"""Input of the reports: an evaluation record and its example images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Example:
    """An evaluated pair and one sample per generator. Images are (C, H, W) in [0, 1], not quantised."""

    id: str
    camera: str | None
    iso: int | None
    clean: Tensor
    real: Tensor
    generated: dict[str, Tensor]


@dataclass(frozen=True)
class Evaluation:
    """A JSON-serialisable evaluation record and examples for plots; no examples if the record was read from a file."""

    record: dict[str, Any]
    examples: tuple[Example, ...]
