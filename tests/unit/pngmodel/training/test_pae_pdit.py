"""Both stages on synthetic correlated noise: they learn what they should and touch nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from pngmodel.network.consistency import denoise
from pngmodel.network.model import NoiseModel, Precision
from pngmodel.network.presets import ModelConfig
from pngmodel.training.loop import run_stage
from pngmodel.training.objective import Objective
from pngmodel.training.pae import AutoencoderObjective, measure_latent
from pngmodel.training.pdit import TransformerObjective
from pngmodel.training.samples import NoiseBatch, Samples
from pngmodel.training.settings import PDiTSettings, StageSettings

CPU = Precision(torch.device("cpu"), torch.float32)


@pytest.fixture
def pairs(correlated, smallest, samples_of) -> Samples:
    made = []
    for seed in range(4):
        g = torch.Generator().manual_seed(100 + seed)
        coarse = torch.rand(1, 3, 3, 3, generator=g)
        clean = 0.2 + 0.6 * torch.nn.functional.interpolate(coarse, 48, mode="bilinear", align_corners=True)[0]
        made.append((clean + 0.03 * correlated(48, 48, seed=seed), clean))
    return samples_of(made, smallest(whitening="quantiles"))


def loss_of(objective: Objective, batch: NoiseBatch, step: int = 0) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    return objective(batch.noise, batch.clean, batch.reference, batch.numbers, step)  # type: ignore[operator]


@pytest.fixture
def make(smallest: Callable[..., ModelConfig]) -> Callable[..., NoiseModel]:
    def build(**changes: object) -> NoiseModel:
        torch.manual_seed(0)
        return NoiseModel(smallest(whitening="quantiles", **changes))

    return build


def pae_settings(**changes: object) -> StageSettings:
    values = {
        "steps": 60,
        "batch": 8,
        "crop": 16,
        "optimiser": "adam",
        "learning_rate": 3e-3,
        "gradient_clip": 1.0,
        "ema": 0.9,
    }
    return StageSettings(**(values | {"log_every": 1} | changes))  # type: ignore[arg-type]


def pdit_settings(**changes: object) -> PDiTSettings:
    values = {
        "steps": 60,
        "batch": 8,
        "crop": 16,
        "learning_rate": 3e-3,
        "gradient_clip": 1.0,
        "ema": 0.9,
        "log_every": 1,
    }
    return PDiTSettings(**(values | changes))  # type: ignore[arg-type]


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


def state(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in module.state_dict().items()}


def test_pae_loss_is_l1_plus_the_latents_mean_square(make: Callable[..., NoiseModel], pairs: Samples, awake) -> None:
    model = awake(make(latent_init="random", latent_channels=16))
    batch = pairs.__getitems__(range(8))
    with torch.no_grad():
        loss, metrics = loss_of(AutoencoderObjective(model, pae_settings(), CPU), batch)
        decoded, latent = model.autoencoder(batch.noise, batch.clean)
    expected = (decoded - batch.noise).double().abs().mean() + 1e-6 * latent.double().square().mean()
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)
    assert float(metrics["std_ratio"]) == pytest.approx(float(decoded.std() / batch.noise.std()), rel=1e-5)


def test_pae_learns_a_random_latent(
    make: Callable[..., NoiseModel], correlated, smallest, samples_of, tmp_path: Path
) -> None:
    # Blotches of 8 pixels: an eighth of the side holds what there is to know.
    clean = torch.full((3, 64, 64), 0.5)
    blotches = torch.nn.functional.interpolate(correlated(8, 8)[None], 64, mode="bilinear")[0]
    pairs = samples_of([(clean + 0.05 * blotches, clean)], smallest(whitening="moments"))
    model = make(latent_init="random", latent_channels=64, channels=(8, 8, 16, 32))
    chosen = pae_settings(steps=50, learning_rate=1e-3)
    run_stage(AutoencoderObjective(model, chosen, CPU), pairs, chosen, tmp_path, identity="i")
    found = losses(tmp_path)
    assert sum(found[-10:]) < 0.9 * sum(found[:10])


def test_pae_keeps_a_lossless_latent_nearly_lossless(
    make: Callable[..., NoiseModel], pairs: Samples, tmp_path: Path
) -> None:
    model = make()
    chosen = pae_settings(steps=10, learning_rate=1e-4)
    run_stage(AutoencoderObjective(model, chosen, CPU), pairs, chosen, tmp_path, identity="i")
    assert losses(tmp_path)[0] < 1e-5
    assert losses(tmp_path)[-1] < 0.05


def test_measured_statistics_normalise_the_latent(make: Callable[..., NoiseModel], pairs: Samples, awake) -> None:
    model = awake(make(latent_init="random", latent_channels=16)).eval()
    measure_latent(model, pairs, pae_settings(), CPU)
    batch = pairs.__getitems__(range(5000, 5064))
    with torch.no_grad():
        z = model.normalise(model.autoencoder.encoder.latent(batch.noise))
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(16), atol=0.15, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3)), torch.full((16,), 0.5), atol=0.12, rtol=0)


def test_pdit_trains_the_transformer_only(make: Callable[..., NoiseModel], pairs: Samples, tmp_path: Path) -> None:
    model = make()
    autoencoder, transformer = state(model.autoencoder), state(model.transformer)
    chosen = pdit_settings(steps=4)
    run_stage(TransformerObjective(model, chosen, CPU), pairs, chosen, tmp_path, identity="i")
    assert all(torch.equal(v, autoencoder[k]) for k, v in model.autoencoder.state_dict().items())
    assert any(not torch.equal(v, transformer[k]) for k, v in model.transformer.state_dict().items())


class OneCrop:
    """A training set of a single crop: its latent is one point that the P-DiT can learn by heart."""

    def __init__(self, noise: torch.Tensor) -> None:
        self.noise = noise

    def __getitems__(self, numbers: Sequence[int]) -> NoiseBatch:
        noise = self.noise.expand(len(numbers), -1, -1, -1)
        return NoiseBatch(noise, torch.zeros_like(noise), noise, torch.tensor(list(numbers)))

    def describe(self, numbers: Sequence[int]) -> str:
        return "the crop"


@pytest.mark.parametrize("loss", ["pseudo_huber", "pseudo_huber_elementwise", "cauchy"])
def test_pdit_learns_a_point_by_heart(make: Callable[..., NoiseModel], correlated, tmp_path: Path, loss: str) -> None:
    # Tokens as wide as the latent, or the noise to be removed would not fit through.
    model = make(width=192, heads=4, depth=1)
    crop = OneCrop(correlated(16, 16)[None])
    chosen = pdit_settings(steps=75, loss=loss, learning_rate=3e-3)
    with torch.no_grad():
        target = model.normalise(model.autoencoder.encoder.latent(crop.noise))

    def error(sigma: float) -> float:
        """Relative error of the point denoised from sigma, in one step."""
        eps = torch.randn(1, 192, 2, 2, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            network = model.network(model.autoencoder.encoder.prompts(crop.noise), torch.zeros(1, 3, 16, 16), CPU)
            found = denoise(network, target + sigma * eps, torch.tensor([sigma]), model.schedule)
            return float((found - target).norm() / target.norm())

    assert error(2.0) > 0.9
    run_stage(TransformerObjective(model, chosen, CPU), crop, chosen, tmp_path, identity="i")
    assert error(2.0) < 0.7
    assert error(80.0) < 0.95


@pytest.mark.parametrize("train_prompts", [True, False])
def test_gradient_reaches_the_prompt_blocks_only_when_asked(
    make: Callable[..., NoiseModel], pairs: Samples, awake, train_prompts: bool
) -> None:
    model = awake(make())
    chosen = pdit_settings(train_prompts=train_prompts)
    loss_of(TransformerObjective(model, chosen, CPU), pairs.__getitems__(range(8)))[0].backward()
    encoder = model.autoencoder.encoder
    blocks = [*encoder.global_prompts, encoder.local_prompt]
    if train_prompts:
        for block in blocks:
            assert all(float(p.grad.abs().max()) > 0 for name, p in block.named_parameters()), block
    else:
        assert all(p.grad is None for p in encoder.parameters())
    assert all(p.grad is None for p in [*encoder.head.parameters(), *model.autoencoder.decoder.parameters()])
    assert float(model.transformer.head.weight.grad.abs().max()) > 0


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_trained_prompts_get_their_gradient_in_any_precision(
    make: Callable[..., NoiseModel], pairs: Samples, awake, precision: torch.dtype
) -> None:
    # The latent is made without gradient in the same autocast context: its cached weights must not be reused.
    model = awake(make())
    objective = TransformerObjective(model, pdit_settings(train_prompts=True), Precision(CPU.device, precision))
    loss_of(objective, pairs.__getitems__(range(8)))[0].backward()
    encoder = model.autoencoder.encoder
    for layer in (encoder.stem, *encoder.down, encoder.global_prompts[2].weigh):
        assert float(layer.weight.grad.abs().max()) > 0


def test_train_prompts_needs_a_latent_that_does_not_move(make: Callable[..., NoiseModel]) -> None:
    with pytest.raises(ValueError, match="train_prompts requires latent_init 'lossless'"):
        TransformerObjective(make(latent_init="random"), pdit_settings(train_prompts=True), CPU)


def test_condition_noise_is_of_the_stated_strength(make: Callable[..., NoiseModel], pairs: Samples) -> None:
    model = make()
    seen = []
    bind = model.network
    model.network = lambda code, clean, precision: (seen.append(clean), bind(code, clean, precision))[1]  # type: ignore[method-assign]
    for strength in (0.0, 5 / 255):
        batch = pairs.__getitems__(range(8))
        loss_of(TransformerObjective(model, pdit_settings(condition_noise=strength), CPU), batch)
        # Clean is in [-1, 1] here, so a std in [0, 1] counts twice.
        assert float((seen[-1] - batch.clean).std()) == pytest.approx(2 * strength, rel=0.05)


def test_stage_two_is_reproducible(make: Callable[..., NoiseModel], pairs: Samples, tmp_path: Path) -> None:
    ends = []
    for name in ("a", "b"):
        model = make(dropout=0.1)
        chosen = pdit_settings(steps=3, train_prompts=True)
        run_stage(TransformerObjective(model, chosen, CPU), pairs, chosen, tmp_path / name, identity="i")
        ends.append(state(model))
    assert all(torch.equal(v, ends[1][k]) for k, v in ends[0].items())


def test_every_trained_parameter_gets_a_gradient(make: Callable[..., NoiseModel], pairs: Samples, awake) -> None:
    # Or several devices would wait for each other for ever.
    for changes in ({}, {"prompts": "global"}, {"prompts": "none"}, {"statistics": "correlation"}):
        objective = TransformerObjective(awake(make(**changes)), pdit_settings(train_prompts=True), CPU)
        loss_of(objective, pairs.__getitems__(range(8)))[0].backward()
        assert [name for name, p in objective.named_parameters() if p.requires_grad and p.grad is None] == []


def test_a_sample_draws_the_same_numbers_in_any_batch(make: Callable[..., NoiseModel], pairs: Samples, awake) -> None:
    objective = TransformerObjective(awake(make()), pdit_settings(), CPU)
    with torch.no_grad():
        together = loss_of(objective, pairs.__getitems__(range(8)))[0]
        parts = [loss_of(objective, pairs.__getitems__(range(k, k + 2)))[0] for k in (0, 2, 4, 6)]
    assert float(together) == pytest.approx(float(sum(parts) / 4), rel=1e-5)


@pytest.mark.parametrize("stage", ["pae", "pdit"])
def test_pictures_show_real_noise_and_what_is_made_of_it(
    make: Callable[..., NoiseModel], pairs: Samples, stage: str
) -> None:
    objective = (
        AutoencoderObjective(make(), pae_settings(), CPU)
        if stage == "pae"
        else TransformerObjective(make(preconditioning="gaussian"), pdit_settings(), CPU)
    )
    shown = objective.pictures(pairs.__getitems__(range(8)))
    made = list(shown.rows.values())[1]
    assert made.shape == shown.rows["real"].shape == (8, 3, 16, 16)
    # Untrained: a lossless autoencoder, and a model that draws white noise of the right strength.
    assert shown.metrics["generated_std_ratio"] == pytest.approx(1, abs=0.15)
    assert (shown.metrics["generated_lag1_error"] < 0.02) == (stage == "pae")
