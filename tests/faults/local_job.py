"""The main job on local disks without Prefect: a process that starts in seconds and ends as the command line does.

python local_job.py IMAGES FOLDER TRAINING
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from flows.cli.console import user_errors
from tasks.datasets.extraction import Geometry, extract_patches
from tasks.datasets.ingest import ingest
from tasks.training.stages import load_training
from tests.faults.made import make


def main(images: str, folder: str, training: str) -> None:
    """Every stage; what an earlier call finished is found done."""
    catalogue, patches = f"{folder}/catalogue", f"{folder}/patches"
    ingest(images, "folders", catalogue)
    extract_patches(catalogue, patches, geometry=Geometry(size=32), shard=16)
    config = load_training(training)
    config.use_stores([patches])
    run = config.create_run(Path(folder) / "training")
    run.publish(run.train(), "a test")
    make(images, f"{folder}/corpus", json.dumps({"references": patches}))


if __name__ == "__main__":
    with user_errors():
        main(*sys.argv[1:])
