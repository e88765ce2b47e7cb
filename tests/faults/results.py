"""Measurements of the long forms, kept in a folder for docs/results/."""

from __future__ import annotations

import os
from pathlib import Path

FOLDER = os.environ.get("PNGNOISE_FAULT_RESULTS")  # before a test clears the environment


def keep(name: str, text: str) -> None:
    """Print, and write to that folder where one is named."""
    print(f"\n{text}")
    if FOLDER:
        Path(FOLDER).mkdir(parents=True, exist_ok=True)
        with (Path(FOLDER) / name).open("a") as file:
            file.write(f"{text}\n")
