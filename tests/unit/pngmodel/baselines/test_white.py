"""AWGN and heteroscedastic noise have the statistics that they were fitted to, and no structure."""

from __future__ import annotations

import pytest
import torch

from pngmodel.baselines import Awgn, Heteroscedastic
from pngmodel.metrics.autocorrelation import autocorrelation, cross_channel
from pngmodel.metrics.curves import noise_curve


def reference(size: int = 192) -> tuple[torch.Tensor, torch.Tensor]:
    """Std .02 to .06 and mean 0 to -.02 against intensity, correlated with the pixel to the right."""
    g = torch.Generator().manual_seed(0)
    clean = torch.linspace(0.25, 0.75, size).expand(3, size, size).contiguous()
    u = torch.randn(3, size, size + 1, generator=g)
    u = (u[..., 1:] + u[..., :-1]) / 2**0.5
    noise = -0.04 * (clean - 0.25) + (0.08 * clean) * u
    return clean + noise, clean


def test_awgn() -> None:
    noisy, clean = reference()
    scale = torch.tensor([1.0, 0.5, 1.5])[:, None, None]
    noisy = clean + scale * (noisy - clean)
    model = Awgn()
    prompts = model.extract(noisy, clean)
    torch.testing.assert_close(prompts["std"], (noisy - clean).std(dim=(1, 2), correction=0))
    torch.testing.assert_close(prompts["mean"], (noisy - clean).mean(dim=(1, 2)))
    noise = model.sample(clean[None], [prompts], [1])[0] - clean
    torch.testing.assert_close(noise.std(dim=(1, 2)), prompts["std"], rtol=0.02, atol=0)
    torch.testing.assert_close(noise.mean(dim=(1, 2)), prompts["mean"], rtol=0, atol=1e-3)
    assert float(autocorrelation(noise).abs().max()) < 0.02
    assert float(cross_channel(noise).abs().max()) < 0.02


def test_heteroscedastic() -> None:
    noisy, clean = reference()
    model = Heteroscedastic()
    noise = model.sample(clean[None], [model.extract(noisy, clean)], [1])[0] - clean
    curve = noise_curve(noise, clean)
    seen = curve.std.isfinite()
    centres = curve.intensity.expand_as(curve.std)[seen]
    torch.testing.assert_close(curve.std[seen], 0.08 * centres, rtol=0.06, atol=0)
    torch.testing.assert_close(curve.mean[seen], -0.04 * (centres - 0.25), rtol=0, atol=0.003)
    # The mean curve follows the scene; what is left is white.
    assert float(autocorrelation(noise + 0.04 * clean).abs().max()) < 0.02


@pytest.mark.parametrize("intensity", [0.0, 1.0])
def test_heteroscedastic_outside_the_references_range_keeps_its_end_values(intensity: float) -> None:
    noisy, clean = reference()
    model = Heteroscedastic()
    target = torch.full((3, 64, 64), intensity)
    noise = model.noise(target, model.extract(noisy, clean), 0)
    assert float(noise.std()) == pytest.approx(0.08 * min(max(intensity, 0.25), 0.75), rel=0.1)
