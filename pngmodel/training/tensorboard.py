"""Logs of a training: metrics.jsonl, and TensorBoard event files with the same metrics and images."""

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
_MAX_SAMPLES = 8
_STDS = 3.0  # mid grey is zero noise; black and white are this many standard deviations from it


class TensorBoardLogger:
    """Logs metrics and images of one stage. If the stage resumes at a step, later entries are removed.

    I/O errors only stop the logging and not the training, because failing checkpoints raise their own errors.
    """

    def __init__(self, folder: Path, step: int) -> None:
        self._path = folder / "metrics.jsonl"
        self._writer: SummaryWriter | None = None  # None after an I/O error
        with self._ignoring_io_errors():
            folder.mkdir(parents=True, exist_ok=True)
            rows = _rows(self._path) if step and self._path.exists() else []
            working = self._path.with_suffix(".writing")
            working.write_text("".join(json.dumps(row) + "\n" for row in rows if row["step"] <= step))
            working.replace(self._path)
            self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1)

    def write(self, step: int, row: dict[str, float]) -> None:
        """Log the metrics of a step."""
        if self._writer is None:
            return
        with self._ignoring_io_errors():
            with self._path.open("a") as file:
                file.write(json.dumps({"step": step} | row) + "\n")
            for name, value in row.items():
                self._writer.add_scalar(name, value, step)

    def show(self, step: int, pictures: Pictures) -> None:
        """Log images of noise, one row per kind, and their metrics."""
        if self._writer is None:
            return
        with self._ignoring_io_errors():
            for name, value in pictures.metrics.items():
                self._writer.add_scalar(name, value, step)
            self._writer.add_image("noise", grid(pictures), step)
            self._writer.add_text("rows", ", ".join(pictures.rows), step)

    def close(self) -> None:
        """Flush and close the files."""
        if self._writer is not None:
            with self._ignoring_io_errors():
                self._writer.close()

    @contextmanager
    def _ignoring_io_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            _LOG.warning("%s: logging stops (%s); the training continues", self._path, error)
            self._writer = None


def grid(pictures: Pictures) -> Tensor:
    """Arrange noise in rows as an image (3, rows * H, n * W) in [0, 1]; 0.5 is zero, 0 and 1 are 3 stds of row 1."""
    first = next(iter(pictures.rows.values())).float().cpu()
    scale = 2 * _STDS * float(first.std().clamp(min=1e-6))
    rows = [
        torch.cat(list(noise[:_MAX_SAMPLES].float().cpu() / scale + 0.5), dim=-1) for noise in pictures.rows.values()
    ]
    return torch.cat(rows, dim=-2).clamp(0, 1)


def _rows(path: Path) -> list[dict[str, Any]]:
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:  # the last row is incomplete if the process was killed
            break
    return rows
