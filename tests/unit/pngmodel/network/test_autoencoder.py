"""Prompt autoencoder: lossless start, any multiple of 8, prompt variants."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from pngmodel.network.autoencoder import NoiseDecoder, PromptAutoencoder, PromptEncoder
from pngmodel.network.presets import ModelConfig


def rearranged(noise: np.ndarray) -> np.ndarray:
    """Channel c, row offset i, column offset j -> latent channel c * 64 + i * 8 + j, spelled out."""
    b, c, h, w = noise.shape
    return noise.reshape(b, c, h // 8, 8, w // 8, 8).transpose(0, 1, 3, 5, 2, 4).reshape(b, c * 64, h // 8, w // 8)


@pytest.fixture
def noise() -> torch.Tensor:
    return torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


def test_lossless_latent_starts_as_the_rearranged_noise(smallest: Callable[..., ModelConfig], noise) -> None:
    encoder = PromptEncoder(smallest())
    for latent in (encoder(noise)[0], encoder.latent(noise)):
        np.testing.assert_array_equal(latent.detach().numpy(), rearranged(noise.numpy()))


def test_lossless_decoder_starts_by_giving_the_noise_back(smallest: Callable[..., ModelConfig], noise) -> None:
    config = smallest()
    clean = torch.rand(2, 3, 24, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1
    autoencoder = PromptAutoencoder(config)
    decoded, latent = autoencoder(noise, clean)
    assert torch.equal(decoded, noise)
    assert torch.equal(NoiseDecoder(config)(latent, clean), noise)


def test_latent_alone_equals_the_full_forward_once_trained(smallest: Callable[..., ModelConfig], awake, noise) -> None:
    encoder = PromptEncoder(smallest())
    with torch.no_grad():
        encoder.head.bias += 0.5  # the bias alone already changes the latent
        torch.testing.assert_close(encoder.latent(noise), encoder(noise)[0])
        awake(encoder)
        torch.testing.assert_close(encoder.latent(noise), encoder(noise)[0])
    assert not np.allclose(encoder.latent(noise).detach().numpy(), rearranged(noise.numpy()))


def test_random_latent_has_no_shortcut(smallest: Callable[..., ModelConfig], noise) -> None:
    torch.manual_seed(0)
    config = smallest(latent_init="random", latent_channels=16)
    decoded, latent = PromptAutoencoder(config)(noise, torch.zeros_like(noise))
    assert latent.shape == (2, 16, 3, 5)
    assert decoded.shape == noise.shape
    assert float((decoded - noise).detach().abs().mean()) > 0.1


@pytest.mark.parametrize("size", [(8, 8), (16, 8), (24, 72), (40, 32)])
def test_any_multiple_of_eight(smallest: Callable[..., ModelConfig], awake, size: tuple[int, int]) -> None:
    model = awake(PromptAutoencoder(smallest()))
    noise = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    decoded, latent = model(noise, torch.zeros_like(noise))
    assert latent.shape == (1, 192, size[0] // 8, size[1] // 8)
    assert decoded.shape == noise.shape
    assert bool(torch.isfinite(decoded).all())


@pytest.mark.parametrize("size", [(16, 16), (32, 56)])
def test_codes_are_compact_and_size_independent(
    smallest: Callable[..., ModelConfig], awake, size: tuple[int, int]
) -> None:
    encoder = awake(PromptEncoder(smallest()))
    code = encoder.prompts(torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0)))
    shapes = {name: tuple(value.shape) for name, value in code.items()}
    assert shapes == {
        "global_0": (2, 4),
        "global_1": (2, 4),
        "global_2": (2, 8),
        "global_3": (2, 8),
        "local": (2, 2, 25, 4),
    }
    for level in range(4):
        torch.testing.assert_close(code[f"global_{level}"].sum(1), torch.ones(2))
    features = encoder.expand(code, 48, 24)
    assert [tuple(f.shape) for f in features] == [
        (2, 4, 48, 24),
        (2, 4, 48, 24),
        (2, 4, 24, 12),
        (2, 8, 12, 6),
        (2, 8, 6, 3),
    ]


@pytest.mark.parametrize(
    ("prompts", "names", "features"),
    [("none", [], 0), ("global", ["global_0", "global_1", "global_2", "global_3"], 4)],
)
def test_prompt_variants(
    smallest: Callable[..., ModelConfig], awake, noise, prompts: str, names: list[str], features: int
) -> None:
    encoder = awake(PromptEncoder(smallest(prompts=prompts)))
    latent, code = encoder(noise)
    assert sorted(code) == names
    assert len(encoder.expand(code, 16, 16)) == features
    assert bool(torch.isfinite(latent).all())


def test_decoded_noise_depends_on_the_clean_image(smallest: Callable[..., ModelConfig], awake) -> None:
    decoder = awake(NoiseDecoder(smallest()))
    latent = torch.randn(1, 192, 2, 2, generator=torch.Generator().manual_seed(0))
    dark, bright = (decoder(latent, torch.full((1, 3, 16, 16), v)) for v in (-0.9, 0.9))
    assert float((dark - bright).detach().abs().max()) > 1e-3


def test_images_of_a_batch_do_not_mix(smallest: Callable[..., ModelConfig], awake, noise) -> None:
    model = awake(PromptAutoencoder(smallest())).eval()
    together, _ = model(noise, noise.clamp(-1, 1))
    alone, _ = model(noise[1:], noise[1:].clamp(-1, 1))
    torch.testing.assert_close(together[1:], alone, atol=1e-5, rtol=1e-5)
