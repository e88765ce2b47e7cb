"""One training on several processes: those that it starts itself, and those of torchrun."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from pngmodel.errors import UserError
from pngmodel.training import checkpoints
from pngmodel.training.loop import Progress
from tasks.runtime.configuration import load_yaml
from tasks.runtime.devices import Devices
from tasks.training.noise_model import TrainingConfig
from tasks.training.stages import train_stages

MODEL = {"width": 24, "depth": 1, "heads": 2, "channels": [4, 4, 8, 8], "prompt_map_size": 16, "tile": 32}
STAGE = {"batch": 4, "crop": 32, "learning_rate": 1e-3, "gradient_clip": 1.0, "log_every": 1}


@pytest.fixture
def configuration(patches: str, tmp_path: Path) -> Path:
    """A training of a few steps, with prompts learned in stage 2."""
    content = {
        "preset": "tiny",
        "model": MODEL | {"tile_overlap": 8},
        "data": {"stores": [patches], "region": 32},
        "pae": STAGE | {"steps": 2, "optimiser": "adam"},
        "pdit": STAGE | {"steps": 4, "train_prompts": True},
    }
    path = tmp_path / "model.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture
def train(configuration: Path) -> Callable[..., list[Progress]]:
    def run(output: Path, **devices: Any) -> list[Progress]:
        seen: list[Progress] = []
        config = load_yaml(str(configuration), TrainingConfig)
        outcomes = train_stages(config, output, Devices(**devices), str(configuration), report=seen.append)
        assert [(name, outcome.finished) for name, outcome in outcomes.items()] == [("pae", True), ("pdit", True)]
        return seen

    return run


def weights(output: Path) -> dict[str, torch.Tensor]:
    found = checkpoints.newest(output / "pdit" / "checkpoints")
    assert found is not None
    return {name: value for name, value in found[1].items() if name.startswith("parameter.")}


def close(a: Path, b: Path) -> None:
    """Equal but for the order in which gradients were added."""
    expected = weights(b)
    for name, value in weights(a).items():
        torch.testing.assert_close(value, expected[name], atol=2e-3, rtol=2e-2, msg=name)


def test_two_processes_learn_what_one_learns(train: Callable[..., list[Progress]], tmp_path: Path) -> None:
    alone = train(tmp_path / "one")
    together = train(tmp_path / "two", devices=2)
    close(tmp_path / "two", tmp_path / "one")
    assert [(p.stage, p.step) for p in together] == [(p.stage, p.step) for p in alone]
    losses = [
        [json.loads(row)["loss"] for row in (tmp_path / n / "pdit" / "metrics.jsonl").open()] for n in ("one", "two")
    ]
    assert losses[1] == pytest.approx(losses[0], rel=0.02)
    # What several began, one can take up, and the other way round: a finished training replays.
    assert train(tmp_path / "two") == []


def test_torchrun_starts_the_same_command(
    train: Callable[..., list[Progress]], configuration: Path, tmp_path: Path
) -> None:
    train(tmp_path / "one")
    bin_folder = Path(sys.executable).parent
    command = [
        str(bin_folder / "torchrun"), "--no-python", "--nproc-per-node", "2", "--master-port", "29411",
        str(bin_folder / "pngnoise"), "train", str(configuration), "--output", str(tmp_path / "two"),
        "--devices", "2", "--json",
    ]  # fmt: skip
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    result = json.loads(done.stdout[done.stdout.index("{") :])
    assert result["finished"] is True
    assert (tmp_path / "two" / "bundle" / "digest.json").exists()
    close(tmp_path / "two", tmp_path / "one")


def test_an_error_in_another_process_is_reported(configuration: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(configuration.read_text())
    content["pdit"]["batch"] = 3
    configuration.write_text(yaml.safe_dump(content))
    config = load_yaml(str(configuration), TrainingConfig)
    with pytest.raises(UserError, match="batch: 3 is not divisible by 2 devices"):
        train_stages(config, tmp_path / "run", Devices(devices=2), str(configuration))


def test_a_launcher_of_another_number_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "8")):
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="started 8 processes, but devices x nodes is 1"):
        train_stages(None, Path("x"), Devices(), "x")  # type: ignore[arg-type]


def test_machines_that_are_not_there_are_refused() -> None:
    for devices, message in (
        ({"nodes": 2}, "nodes: 2 machines require torchrun"),
        ({"device": "cuda:7"}, "'cuda:7' cannot be used"),
        ({"device": "nothing"}, "'nothing' cannot be used"),
    ):
        with pytest.raises(UserError, match=message):
            train_stages(None, Path("x"), Devices(**devices), "x")  # type: ignore[arg-type]
