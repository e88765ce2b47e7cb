"""Sizes of the presets against the published counts, and the configuration's refusals."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from pngmodel.errors import UserError
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import PRESETS, ModelConfig, preset


def millions(module: nn.Module) -> float:
    return sum(p.numel() for p in module.parameters()) / 1e6


def on_paper(name: str) -> NoiseModel:
    """The model without memory or time spent on its weights."""
    with torch.device("meta"):
        return NoiseModel(preset(name))


def test_paper_has_the_published_size() -> None:
    model = on_paper("paper")
    assert millions(model.autoencoder.encoder) == pytest.approx(12.47, rel=0.1)
    assert millions(model.autoencoder.decoder) == pytest.approx(2.44, rel=0.1)
    assert millions(model.transformer) == pytest.approx(28.71, rel=0.1)
    assert millions(model) == pytest.approx(43.6, rel=0.1)


def test_paper_prompt_maps_and_correlation_network_have_the_published_size() -> None:
    encoder = on_paper("paper").autoencoder.encoder
    maps = sum(p.numel() for name, p in encoder.named_parameters() if name.endswith(".map")) / 1e6
    assert maps == pytest.approx(7.67, rel=0.1)
    assert millions(encoder.local_prompt.combine) == pytest.approx(1.58, rel=0.15)


def test_paper_follows_the_paper_where_tiny_does_not() -> None:
    paper = preset("paper")
    assert paper.whitening == paper.decorrelation == paper.calibration == paper.statistics == "none"
    assert paper.preconditioning == "edm"
    assert paper.latent_init == "random"
    assert (paper.width, paper.depth, paper.heads, paper.dropout) == (384, 8, 6, 0.1)
    assert paper.channels == (48, 48, 96, 192)


@pytest.mark.parametrize("name", ["tiny", "small"])
def test_what_ships_stays_small(name: str) -> None:
    numbers = sum(v.numel() for v in on_paper(name).state_dict().values())
    assert numbers * 4 < 30e6


@pytest.mark.parametrize("name", PRESETS)
def test_preset_survives_json_and_carries_its_name(name: str) -> None:
    config = preset(name)
    assert config.preset == name
    assert ModelConfig.model_validate_json(config.model_dump_json()) == config


def test_unknown_preset_lists_the_names() -> None:
    with pytest.raises(UserError, match="'huge' does not exist; choose one of tiny, small, paper"):
        preset("huge")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"latent_channels": 64}, "latent_init 'lossless' requires 192"),
        ({"heads": 5}, "must be divisible by heads 5"),
        ({"width": 30, "heads": 3}, "by 4"),
        ({"tile": 60}, "multiples of 8"),
        ({"tile_overlap": 12}, "multiples of 8"),
        ({"tile": 32, "tile_overlap": 24}, "at most half a tile"),
        ({"correlation_size": 4}, "must be odd"),
        ({"correlation_window": 8}, "must be odd"),
        ({"calibration": "moments", "whitening": "none"}, "calibration 'moments' requires whitening"),
        ({"depht": 3}, "Extra inputs are not permitted"),
        ({"dropout": 1.0}, "less than 1"),
        ({"prompts": "local"}, "global\\+local"),
    ],
)
def test_configuration_refuses(smallest: Callable[..., ModelConfig], changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        smallest(**changes)
