"""Denoisers by name."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pngmodel.errors import IntegrityError, UserError
from pngmodel.metrics.fidelity import psnr
from tasks.models.denoisers import NonLocalMeans, _noise_std, denoiser_digest, load_denoiser


@pytest.mark.parametrize("channels", [1, 3])
def test_non_local_means_removes_noise(pair, channels: int) -> None:
    made = pair(3, channels=channels, strength=2.0)
    noisy, clean = (torch.from_numpy(np.moveaxis(x, -1, 0) / np.float32(255)) for x in made)
    found = NonLocalMeans().run(noisy[None])[0]
    assert psnr(found, clean) > psnr(noisy, clean) + 2
    assert torch.equal(NonLocalMeans().run(torch.stack([noisy, clean]))[0], found)


@pytest.mark.parametrize("width", [1, 2])
def test_the_strength_of_white_and_of_correlated_noise(width: int) -> None:
    white = np.random.default_rng(0).standard_normal((257, 257, 3))
    blurred = sum(np.roll(white, shift, 1) for shift in range(width)) / np.sqrt(width)
    image = (0.5 + 0.05 * blurred[:256, :256]).astype(np.float32)
    assert _noise_std(image) == pytest.approx(0.05, rel=0.05)


def test_names() -> None:
    digest = denoiser_digest("nlm")
    assert load_denoiser("nlm", "cpu", digest).name == "nlm"
    with pytest.raises(IntegrityError, match="the denoiser has changed since"):
        load_denoiser("nlm", "cpu", "0" * 64)
    with pytest.raises(UserError, match="not a model bundle"):
        denoiser_digest("nowhere/bundle")
