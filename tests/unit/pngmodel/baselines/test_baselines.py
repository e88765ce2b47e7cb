"""What every baseline keeps to: the face, determinism, independence of the batch, sizes and channels."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from pngmodel.baselines import BASELINES, baseline
from pngmodel.errors import UserError
from pngmodel.interface import NoisyImageGenerator
from pngmodel.seeds import derive_seed


def pair(channels: int = 3, height: int = 48, width: int = 40, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    clean = torch.linspace(0.2, 0.8, width).expand(channels, height, width).contiguous()
    noisy = clean + (0.02 + 0.05 * clean) * torch.randn(clean.shape, generator=g)
    return (noisy.clamp(0, 1) * 255).round() / 255, clean


@pytest.fixture(params=list(BASELINES))
def model(request: pytest.FixtureRequest) -> NoisyImageGenerator:
    return baseline(request.param)


def test_registry_names_and_error(model: NoisyImageGenerator) -> None:
    names = ["awgn", "heteroscedastic", "spectrum_matched", "spectrum_matched_quantiles", "polyphase_matched"]
    assert list(BASELINES) == names
    assert BASELINES[model.name]().name == model.name
    with pytest.raises(UserError, match=r"'magic'.*awgn, heteroscedastic, spectrum_matched, spectrum_matched_q"):
        baseline("magic")


def test_prompts_are_named_float32_tensors(model: NoisyImageGenerator) -> None:
    prompts = model.extract(*pair())
    assert set(prompts) == model.prompt_names
    for value in prompts.values():
        assert value.dtype == torch.float32
        assert value.shape[0] in (3, 12)  # colours, or colours at the places of a 2 x 2 pattern
        assert bool(value.isfinite().all())


def test_a_sample_depends_on_its_seed_and_not_on_its_batch(model: NoisyImageGenerator) -> None:
    a, b = model.extract(*pair(seed=1)), model.extract(*pair(seed=2))
    clean = torch.rand(3, 3, 33, 57, generator=torch.Generator().manual_seed(0))
    batch = model.sample(clean, [a, b, a], [5, 6, 7])
    again = model.sample(clean.flip(0), [a, b, a], [7, 6, 5]).flip(0)
    torch.testing.assert_close(batch, again, atol=0, rtol=0)
    for k, (prompts, seed) in enumerate([(a, 5), (b, 6), (a, 7)]):
        torch.testing.assert_close(model.sample(clean[k : k + 1], [prompts], [seed])[0], batch[k], atol=0, rtol=0)
    assert not torch.equal(model.sample(clean[:1], [a], [6])[0], batch[0])


def test_output_is_clamped_not_rounded_and_inputs_are_kept(model: NoisyImageGenerator) -> None:
    prompts = model.extract(*pair())
    clean = torch.cat([torch.zeros(1, 3, 20, 20), torch.ones(1, 3, 20, 20), torch.full((1, 3, 20, 20), 0.5)])
    before = clean.clone()
    found = model.sample(clean, [prompts] * 3, [1, 2, 3])
    assert torch.equal(clean, before)
    assert found.dtype == torch.float32
    assert float(found.min()) == 0
    assert float(found.max()) == 1
    scaled = found[2] * 255
    assert float((scaled - scaled.round()).abs().mean()) > 0.2


@pytest.mark.parametrize("reference", [1, 3])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(16, 16), (7, 90), (131, 65)])
def test_any_size_and_channels(
    model: NoisyImageGenerator, reference: int, channels: int, size: tuple[int, int]
) -> None:
    noisy, clean = pair(reference)
    prompts = model.extract(noisy, clean)
    target = torch.full((1, channels, *size), 0.5)
    noise = model.sample(target, [prompts], [3]) - target
    assert noise.shape == target.shape
    assert float(noise.std()) == pytest.approx(0.045, rel=0.3)


def test_grey_and_colour_match_like_the_learned_model(model: NoisyImageGenerator) -> None:
    # A grey image takes green; a grey reference gives grey grain.
    noisy, clean = pair()
    tinted = clean + (noisy - clean) * torch.tensor([0.1, 1.0, 0.1])[:, None, None]
    grey = model.sample(torch.full((1, 1, 64, 64), 0.5), [model.extract(tinted, clean)], [1])
    assert float(grey.std()) == pytest.approx(0.045, rel=0.2)
    colour = model.sample(torch.full((1, 3, 64, 64), 0.5), [model.extract(*pair(1))], [1])[0]
    torch.testing.assert_close(colour[0], colour[2], atol=1e-6, rtol=0)


def test_public_face_takes_arrays_and_noise_alone(model: NoisyImageGenerator) -> None:
    noisy, clean = (np.ascontiguousarray((x * 255).byte().movedim(0, -1).numpy()) for x in pair())
    found = model.generate(clean, reference=(noisy, clean), seed=4)
    assert found.dtype == np.uint8
    assert found.shape == clean.shape
    again = model.generate(clean, prompts=model.prompts(noisy, clean), seed=[derive_seed(4, 0)])
    np.testing.assert_array_equal(found, again)
    difference = (noisy.astype(np.float32) - clean) / 255
    assert (model.generate(clean, reference=difference, seed=4).astype(int) - clean).std() == pytest.approx(11, rel=0.3)


def test_prompts_of_another_generator_are_refused(model: NoisyImageGenerator) -> None:
    with pytest.raises(UserError, match=rf"are missing; use the result of prompts\(\) of '{model.name}'"):
        model.sample(torch.zeros(1, 3, 16, 16), [{"latent": torch.zeros(3)}], [0])


def test_noise_free_reference_gives_next_to_no_noise(model: NoisyImageGenerator) -> None:
    _, clean = pair()
    clean = (clean * 255).round() / 255
    found = model.sample(clean[None], [model.extract(clean, clean)], [0])
    assert bool(found.isfinite().all())
    assert float((found - clean).abs().max()) < 1 / 255
