"""What a training leaves to look at: metrics.jsonl, and the same with pictures for TensorBoard."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from pngmodel.training.objective import Pictures

_LOG = logging.getLogger(__name__)
_SHOWN = 8
_STDS = 3.0  # grey is no noise, black and white are so many stds from it


class TensorBoardLogger:
    """Rows and pictures of one stage. Taken up at a step it drops what came after it: the curve has no doubles.

    A disk that fails costs the curve and not the training, whose checkpoints have errors of their own.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / "metrics.jsonl"
        self._writer: SummaryWriter | None = None  # None: given up
        with self._spared():
            folder.mkdir(parents=True, exist_ok=True)
            rows = _rows(self._path) if step and self._path.exists() else []
            kept = self._path.with_suffix(".writing")
            kept.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
            kept.replace(self._path)
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, row: dict[str, float]) -> None:
        """Log the figures of a step."""
        if self._writer is None:
            return
        with self._spared():
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step} | row) + "\n")
            for name, value in row.items():
                self._writer.add_scalar(name, value, step)

    def show(self, step: int, pictures: Pictures) -> None:
        """Log pictures of noise, a row for each kind, and what was measured on them."""
        if self._writer is None:
            return
        with self._spared():
            for name, value in pictures.metrics.items():
                self._writer.add_scalar(name, value, step)
            self._writer.add_image("noise", grid(pictures), step)
            self._writer.add_text("rows", ", ".join(pictures.rows), step)

    def close(self) -> None:
        """Write everything out."""
        if self._writer is not None:
            with self._spared():
                self._writer.close()

    @contextmanager
    def _spared(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _LOG.warning("%s: the curves are not kept from here on (%s); the training goes on", self._path, error)
            self._writer = None  # half a row is the last one


def grid(pictures: Pictures) -> Tensor:
    """Noise in rows, (3, rows * H, n * W) in [0, 1]: mid grey is none, 0 and 1 are three stds of the first row."""
    first = next(iter(pictures.rows.values())).float().cpu()
    scale = 2 * _STDS * float(first.std().clamp(min=1e-6))
    rows = [torch.cat(list(noise[:_SHOWN].float().cpu() / scale + 0.5), dim=-1) for noise in pictures.rows.values()]
    return torch.cat(rows, dim=-2).clamp(0, 1)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # a kill tore the last row
            break
    return rows
