"""The stages of the main job as commands and as deployed flows, each with what it publishes and when that exists."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pngmodel.training import checkpoints
from tasks.stores.io.filesystem import filesystem, join, read_bytes
from tasks.stores.io.listing import list_files

CROP, SHARD, SCALE, STEPS = 32, 8, 1, 16
_TEMPORARY = ".writing"


@dataclass(frozen=True)
class Stage:
    """One command of the main job; ``run`` gives its words of (output, cluster), ``asked`` the same as parameters."""

    name: str
    run: Callable[[str, str], list[str]]
    asked: Callable[[str, dict[str, str]], dict[str, Any]]
    entrypoint: str
    commit: str
    """What exists when the whole is published, and not before."""
    on_dask: bool = True
    parts: bool = False
    """Whether two processes may share it by --parts, before it is run whole."""
    local: bool = False
    only: tuple[str, ...] = ()
    """What is equal in equal results, where not everything is."""

    def tree(self, output: str) -> dict[str, str]:
        """sha256 of all that was published; of a training the weights, since a bundle also tells how long it took."""
        names = self.only or tuple(name for name in list_files(output) if self._counts(name))
        return {name: hashlib.sha256(read_bytes(join(output, name))).hexdigest() for name in names}

    def published(self, output: str) -> bool:
        fs, path = filesystem(join(output, self.commit))
        fs.invalidate_cache()
        return bool(fs.exists(path))

    @staticmethod
    def _counts(name: str) -> bool:
        return name != "sources.json" and not name.endswith(_TEMPORARY)


def stages(images: str, storage: str, folder: Path) -> list[Stage]:
    """The main job on a folder of pairs, each stage on what the undisturbed run made of the one before it.

    Args:
        images: a folder that adapter ``folders`` reads.
        storage: URL below which the undisturbed run publishes.
        folder: for configurations, and for trainings, which write locally.
    """
    catalogue, patches = f"{storage}/reference/ingest", f"{storage}/reference/extract"
    configuration = folder / "training.yaml"
    configuration.write_text(yaml.safe_dump(training(patches)))
    clean = f"{images}/clean"
    made = {"model": "heteroscedastic", "clean": clean, "crop": CROP, "shard": SHARD, "scale": SCALE}
    return [
        Stage(
            "ingest",
            lambda out, cluster: [
                *("ingest", images, "--adapter", "folders"),
                *("--output", out, "--cluster", cluster),
            ],
            lambda out, cluster: {"source": images, "adapter": "folders", "output": out, "cluster": cluster},
            "flows/ingest_dataset.py:ingest_dataset",
            "catalogue.json",
        ),
        Stage(
            "extract",
            lambda out, cluster: [
                *("patches", catalogue, "--output", out, "--size", str(CROP)),
                *("--shard", str(SHARD), "--cluster", cluster),
            ],
            lambda out, cluster: {
                **{"catalogue": catalogue, "output": out, "shard": SHARD, "cluster": cluster},
                "size": CROP,
            },
            "flows/extract_patches.py:extract_patches",
            "store.json",
        ),
        Stage(
            "train",
            lambda out, cluster: ["train", str(configuration), "--output", out, "--stores", patches],
            lambda out, cluster: {"config": str(configuration), "output": out, "stores": [patches]},
            "flows/train_noise_model.py:train_noise_model",
            "bundle/digest.json",
            on_dask=False,
            local=True,
            only=("bundle/model.safetensors",),
        ),
        Stage(
            "generate",
            lambda out, cluster: [
                *("generate", "--output", out, "--model", "heteroscedastic", "--clean", clean, "--crop", str(CROP)),
                *("--shard", str(SHARD), "--scale", str(SCALE), "--cluster", cluster),
            ],
            lambda out, cluster: made | {"output": out, "cluster": cluster},
            "flows/generate_synthetic_corpus.py:generate_synthetic_corpus",
            "corpus.json",
            parts=True,
        ),
    ]


def training(store: str, steps: int = STEPS) -> dict[str, Any]:
    """A network of seconds with a checkpoint every few steps."""
    stage = {"batch": 2, "crop": 16, "learning_rate": 1e-4, "checkpoint_every": 3, "log_every": 20, "steps": steps}
    return {
        "preset": "tiny",
        "model": {"channels": [4, 4, 8, 8], "width": 24, "depth": 1, "heads": 2},
        "data": {"stores": [store], "region": CROP},
        "pae": dict(stage),
        "pdit": stage | {"train_prompts": True},
    }


def unreadable_checkpoints(output: Path) -> list[str]:
    """Checkpoints under their final names that do not hold, and folders of them of which none can be taken up."""
    broken = []
    for folder in output.glob("*/checkpoints"):
        steps = sorted(folder.glob("step-*"))
        for step in steps:
            state = json.loads((step / "state.json").read_text())
            if hashlib.sha256((step / "tensors.safetensors").read_bytes()).hexdigest() != state["sha256"]:
                broken.append(str(step))
        if steps and checkpoints.newest(folder) is None:
            broken.append(str(folder))
    return broken
