"""What reports are rendered from: an evaluation record and its example images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One evaluated pair and what the generators made of it; (C, H, W) in [0, 1], unrounded."""

    id: str
    camera: str | None
    iso: int | None
    clean: Tensor
    real: Tensor
    generated: dict[str, Tensor]


@dataclass(frozen=True)
class Evaluation:
    """The record (JSON-able), and the examples that pictures are made of: none where the record was read again."""

    record: dict[str, Any]
    examples: tuple[Example, ...]
