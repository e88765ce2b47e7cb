"""The whole model: latent normalisation, precision, the bound network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pngmodel.network.consistency import one_step
from pngmodel.network.model import NoiseModel, Precision, latent_statistics

CPU = Precision(torch.device("cpu"), torch.float32)


def test_latent_statistics_are_per_channel() -> None:
    g = torch.Generator().manual_seed(0)
    scale = torch.tensor([0.1, 1.0, 30.0])[:, None, None]
    latents = torch.randn(50, 3, 4, 4, generator=g) * scale + 5 * scale
    mean, std = latent_statistics(latents)
    x = latents.double().numpy()
    np.testing.assert_allclose(mean.numpy(), x.mean((0, 2, 3)), rtol=1e-6)
    np.testing.assert_allclose(std.numpy(), x.std((0, 2, 3)), rtol=1e-6)


def test_a_silent_channel_stays_finite() -> None:
    mean, std = latent_statistics(torch.full((4, 2, 3, 3), 0.7))
    assert bool((std > 0).all())
    torch.testing.assert_close(mean, torch.full((2,), 0.7))


def test_normalised_latent_has_mean_zero_and_std_sigma_data(model: NoiseModel) -> None:
    g = torch.Generator().manual_seed(0)
    latents = torch.randn(20, 192, 4, 4, generator=g) * torch.linspace(0.1, 3, 192)[:, None, None] + 2
    mean, std = latent_statistics(latents)
    model.latent_mean.copy_(mean)
    model.latent_std.copy_(std)
    z = model.normalise(latents)
    torch.testing.assert_close(z.mean((0, 2, 3)), torch.zeros(192), atol=1e-5, rtol=0)
    torch.testing.assert_close(z.std((0, 2, 3), correction=0), torch.full((192,), 0.5), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(model.denormalise(z), latents, atol=1e-5, rtol=1e-5)


def test_statistics_are_part_of_the_stored_state(model: NoiseModel) -> None:
    assert {"latent_mean", "latent_std"} <= set(model.state_dict())


def test_schedule_is_that_of_the_configuration(smallest) -> None:
    schedule = NoiseModel(smallest(sigma_min=0.01, sigma_max=20.0, sigma_data=0.4)).schedule
    assert (schedule.sigma_min, schedule.sigma_max, schedule.sigma_data) == (0.01, 20.0, 0.4)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_one_step_through_the_bound_network(model: NoiseModel, dtype: torch.dtype) -> None:
    precision = Precision(torch.device("cpu"), dtype)
    g = torch.Generator().manual_seed(0)
    clean = torch.rand(2, 3, 24, 16, generator=g) * 2 - 1
    start = torch.randn(2, 192, 3, 2, generator=g)
    with torch.no_grad():
        code = model.autoencoder.encoder.prompts(torch.randn(2, 3, 32, 32, generator=g))
        latent = one_step(model.network(code, clean, precision), start, model.schedule)
        exact = one_step(model.network(code, clean, CPU), start, model.schedule)
    assert latent.dtype == torch.float32  # preconditioning stays in single precision
    assert latent.shape == start.shape
    error = (latent - exact).square().mean().sqrt() / exact.square().mean().sqrt()
    assert float(error) < 0.03
    assert float(exact.std()) > 0.01


def test_one_code_serves_every_clean_image(model: NoiseModel) -> None:
    g = torch.Generator().manual_seed(0)
    clean = torch.rand(3, 3, 24, 16, generator=g) * 2 - 1
    start = torch.randn(3, 192, 3, 2, generator=g)
    with torch.no_grad():
        code = model.autoencoder.encoder.prompts(torch.randn(1, 3, 32, 32, generator=g))
        repeated = {name: value.expand(3, *value.shape[1:]) for name, value in code.items()}
        expected = one_step(model.network(repeated, clean, CPU), start, model.schedule)
        prompts = model.expand(code, 24, 16, CPU)
        for network in (model.network(code, clean, CPU), model.network(code, clean, CPU, prompts)):
            torch.testing.assert_close(one_step(network, start, model.schedule), expected, atol=1e-5, rtol=1e-5)


def test_kept_weights_are_the_same_function_and_leave_the_model_alone(model: NoiseModel) -> None:
    precision = Precision(torch.device("cpu"), torch.bfloat16)
    kept = precision.weights_kept(model)
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert kept.transformer.embed.weight.dtype == torch.bfloat16
    assert CPU.weights_kept(model) is model
    g = torch.Generator().manual_seed(0)
    clean, noise = torch.rand(2, 3, 24, 16, generator=g) * 2 - 1, torch.randn(1, 3, 32, 32, generator=g)
    start = torch.randn(2, 192, 3, 2, generator=g)
    made = []
    for network in (model, kept):
        with torch.no_grad(), precision.autocast():
            code = network.autoencoder.encoder.prompts(noise)
            latent = one_step(network.network(code, clean, precision), start, model.schedule)
            made.append(network.autoencoder.decoder(latent, clean).float())
    torch.testing.assert_close(made[1], made[0], atol=0.02 * float(made[0].std()), rtol=0.02)
