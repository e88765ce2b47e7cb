"""What a training refuses before it begins, and what it remembers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from pngmodel.errors import UserError
from tasks.runtime.configuration import load_yaml
from tasks.training.noise_model import NoiseModelTraining, TrainingConfig

TINY = Path(__file__).parents[4] / "configs" / "models" / "tiny.yaml"


def config(store: str, **data: Any) -> TrainingConfig:
    """The shipped configuration on another store."""
    found = load_yaml(TINY, TrainingConfig)
    changed = {"stores": [store], "weights": {}, "region": 32} | data
    small = {"crop": 32, "batch": 4, "steps": 2}
    return found.model_copy(
        update={
            "data": found.data.model_copy(update=changed),
            "pae": found.pae.model_copy(update=small),
            "pdit": found.pdit.model_copy(update=small | {"reference_crop": 32}),
        }
    )


def test_shares_of_datasets_that_are_not_there_are_refused_before_any_work(patches: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.weights.*sidd_native"):
        NoiseModelTraining(config(patches, weights={"sidd_native": 1.0}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_writes_locally_and_says_so(patches: str) -> None:
    with pytest.raises(UserError, match="training requires a local output folder"):
        NoiseModelTraining(config(patches), Path("s3://bucket/run"))


def test_the_weights_keep_the_commit_that_began_them(
    patches: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.training.run.commit", lambda: "first")
    NoiseModelTraining(config(patches), tmp_path / "run")
    monkeypatch.setattr("tasks.training.run.commit", lambda: "second")
    assert NoiseModelTraining(config(patches), tmp_path / "run")._commit == "first"
    assert NoiseModelTraining(config(patches, crops=3), tmp_path / "other")._commit == "second"


def test_what_only_changes_drawing_is_the_same_training(patches: str, tmp_path: Path) -> None:
    def identity(**model: Any) -> str:
        changed = config(patches).model_copy(update={"model": model})
        return NoiseModelTraining(changed, tmp_path / "run").identity

    assert identity() != identity(depth=5)
    assert identity() == identity(calibration="none")
