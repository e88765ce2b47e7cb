"""Every baseline that is trained: one face, bundles that come back the same, losses that fall, strengths that fit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pngmodel.baselines.trained import TRAINED, load_baseline, save_baseline, trained
from pngmodel.bundle import bundle_config, load_bundle
from pngmodel.errors import UserError
from pngmodel.interface import NoisyImageGenerator
from pngmodel.training.samples import PairBatch
from pngmodel.training.settings import StageSettings

SMALLEST: dict[str, dict[str, Any]] = {
    "c2n": {"width": 4, "extractor": 1, "independent": 1, "critic_width": 4, "critic_blocks": 1},
    "flow_srgb": {"steps": 2, "hidden": 4, "features": 4},
    "naflow": {"settings": ["dark", "bright"], "levels": 2, "features": 8, "hidden": 6},
    "neca_w": {
        "gain_width": 4,
        "level_width": 4,
        "correlator_width": 4,
        "correlator_scales": 2,
        "critic_width": 4,
        "critic_blocks": 1,
    },
}


def test_all_are_tested() -> None:
    assert set(SMALLEST) == set(TRAINED)
    for name, chosen in TRAINED.items():
        assert chosen.simplifications == chosen.generator.simplifications  # type: ignore[attr-defined]
        assert chosen.simplifications
        assert chosen.generator.name == name  # type: ignore[attr-defined]


@pytest.fixture(params=TRAINED)
def name(request: pytest.FixtureRequest) -> str:
    """Each baseline."""
    return str(request.param)


@pytest.fixture
def generator(name: str, awake: Callable[..., Any]) -> NoisyImageGenerator:
    """Its generator, with a network of random weights."""
    torch.manual_seed(0)
    chosen = TRAINED[name]
    return chosen.generator(awake(chosen.build(chosen.settings(**SMALLEST[name])), size=0.03))


def test_a_sample_is_a_function_of_image_prompts_and_seed(generator: NoisyImageGenerator) -> None:
    clean = torch.rand(3, 3, 17, 22)
    prompts = [generator.extract((c + 0.05 * torch.randn_like(c)).clamp(0, 1), c) for c in clean]
    together = generator.sample(clean, prompts, [4, 5, 6])
    assert together.shape == clean.shape
    assert 0 <= together.min() <= together.max() <= 1
    for k in range(3):
        assert torch.equal(together[k], generator.sample(clean[k : k + 1], [prompts[k]], [4 + k])[0])
    assert not torch.equal(together[0], generator.sample(clean[:1], prompts[:1], [7])[0])
    assert all(value.dtype == torch.float32 and value.numel() for value in prompts[0].values())
    larger = generator.extract(torch.rand(3, 20, 30), torch.rand(3, 20, 30))
    assert generator.sample(clean[:1], [larger], [1]).shape == (1, 3, 17, 22)
    grey = generator.extract(clean[0, :1], clean[0, :1].flip(-1))
    assert generator.sample(clean[:1, :1], [grey], [1]).shape == (1, 1, 17, 22)


def test_a_bundle_comes_back_the_same(name: str, tmp_path: Path) -> None:
    torch.manual_seed(1)
    chosen = TRAINED[name]
    settings = chosen.settings(**SMALLEST[name])
    network = chosen.build(settings)
    save_baseline(name, network, settings, tmp_path / "b", training={}, card="")
    model = bundle_config(tmp_path / "b")["model"]
    assert (model["baseline"], model["simplifications"]) == (name, list(chosen.simplifications))
    loaded = load_baseline(tmp_path / "b")
    clean = torch.rand(1, 3, 16, 16)
    original = chosen.generator(network)
    prompts = original.extract(torch.rand(3, 16, 16), clean[0])
    assert torch.equal(loaded.sample(clean, [prompts], [3]), original.sample(clean, [prompts], [3]))
    with pytest.raises(UserError, match="'pngnoise-baseline'"):
        load_bundle(tmp_path / "b")


def test_unknown_names_are_told() -> None:
    with pytest.raises(UserError, match=r"baseline 'nafow' cannot be trained; choose one of c2n, flow_srgb"):
        trained("nafow")


def test_the_pictures_of_a_training(name: str, stage: StageSettings, pairs_of: Callable[..., Any]) -> None:
    chosen = TRAINED[name]
    network = chosen.build(chosen.settings(**SMALLEST[name])).eval()
    pictures = chosen.objective(network, stage).pictures(pairs_of(0, 2))
    assert {row: noise.shape for row, noise in pictures.rows.items()} == {
        "real": (2, 3, 32, 32),
        "generated": (2, 3, 32, 32),
    }
    assert set(pictures.metrics) == {"generated_std_ratio", "generated_lag1_error"}


def drawn_for(generator: NoisyImageGenerator, real: PairBatch) -> Tensor:
    """A noisy version of each pair's clean image, by its own prompts."""
    prompts = [generator.extract(n, c) for n, c in zip(real.noisy, real.clean, strict=True)]
    return generator.sample(real.clean, prompts, range(len(real)))


def test_neca_learns_levels_from_the_noisy_image_alone(
    stage: StageSettings,
    pairs_of: Callable[..., PairBatch],
    trained_by: Callable[..., list[float]],
    std_ratios: Callable[[Tensor, Tensor, Tensor], list[float]],
) -> None:
    torch.manual_seed(0)
    chosen = TRAINED["neca_w"]
    network = chosen.build(chosen.settings(**SMALLEST["neca_w"] | {"gain_width": 8, "level_width": 8}))
    losses = trained_by(chosen.objective(network, stage), 60, 3e-3)
    assert sum(losses[-10:]) < sum(losses[:10])
    real = pairs_of(9000, 8, 64)
    drawn = drawn_for(chosen.generator(network), real)
    assert std_ratios(drawn, real.noisy, real.clean) == pytest.approx([1, 1], abs=0.35)


def test_c2n_finds_the_strength_without_pairs(
    stage: StageSettings,
    pairs_of: Callable[..., PairBatch],
    trained_by: Callable[..., list[float]],
    std_ratios: Callable[[Tensor, Tensor, Tensor], list[float]],
) -> None:
    torch.manual_seed(0)
    chosen = TRAINED["c2n"]
    network = chosen.build(
        chosen.settings(width=8, extractor=1, independent=1, dependent=1, critic_width=12, critic_blocks=1)
    )
    trained_by(chosen.objective(network, stage), 110, 1e-3, 16)
    real = pairs_of(9000, 8, 64)
    ratios = std_ratios(drawn_for(chosen.generator(network), real), real.noisy, real.clean)
    assert all(0.4 < ratio < 2.5 for ratio in ratios), ratios  # an adversarial training circles round the truth
