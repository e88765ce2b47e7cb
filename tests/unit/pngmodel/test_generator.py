"""The public face: what goes in comes out in kind, and a sample depends on its own inputs only."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from pngmodel import NoiseGenerator, UserError
from pngmodel.bundle import save_bundle
from pngmodel.images import to_unit
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import ModelConfig
from pngmodel.seeds import derive_seed


@pytest.fixture
def noise_generator(model: NoiseModel, tmp_path: Path) -> NoiseGenerator:
    digest = save_bundle(model, tmp_path / "bundle", training={}, card="")
    made = NoiseGenerator.from_pretrained(tmp_path / "bundle")
    assert made.digest == digest
    return made


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A clean (H, W, 3) uint8 image with soft gradients."""
    y, x = np.mgrid[:height, :width] / max(height, width)
    image = np.stack([0.2 + 0.5 * x, 0.3 + 0.4 * y, 0.5 + 0.3 * np.sin(5 * x + seed)], axis=-1)
    return (image * 255).round().astype(np.uint8)


def pair(height: int = 40, width: int = 40, sigma: float = 8.0, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    clean = picture(height, width, seed)
    noise = np.random.default_rng(seed).normal(0, sigma, clean.shape)
    return (clean + noise).round().clip(0, 255).astype(np.uint8), clean


REFERENCE = pair()
CLEAN = picture(32, 32, seed=5)


def as_dtype(image: np.ndarray, dtype: str) -> np.ndarray:
    if dtype == "uint8":
        return image
    if dtype == "uint16":
        return image.astype(np.uint16) * 257
    return (image / 255).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float16", "float32", "float64"])
@pytest.mark.parametrize("library", ["numpy", "torch"])
@pytest.mark.parametrize("layout", ["HWC", "CHW", "BHWC", "BCHW"])
def test_the_answer_has_the_form_of_the_question(
    noise_generator: NoiseGenerator, dtype: str, library: str, layout: str
) -> None:
    clean = as_dtype(CLEAN, dtype)
    clean = clean if layout.endswith("HWC") else clean.transpose(2, 0, 1)
    clean = np.stack([clean, clean]) if layout.startswith("B") else clean
    given = torch.from_numpy(np.ascontiguousarray(clean)) if library == "torch" else clean
    noisy = noise_generator.generate(given, reference=REFERENCE, seed=3)
    assert type(noisy) is type(given)
    assert noisy.dtype == given.dtype
    assert tuple(noisy.shape) == tuple(given.shape)
    # The same image whatever the form, up to the rounding of the form.
    found, _ = to_unit(noisy)
    expected, _ = to_unit(noise_generator.generate(CLEAN / 255, reference=REFERENCE, seed=3))
    step = 1 / 255 if dtype == "uint8" else 2e-3 if dtype == "float16" else 1e-4
    assert float((found[:1] - expected).abs().max()) <= step
    assert float((found[:1] - to_unit(CLEAN)[0]).abs().mean()) > 0.005


def test_noise_has_the_level_of_its_reference(noise_generator: NoiseGenerator) -> None:
    clean = picture(64, 64) / 255
    for sigma in (3.0, 9.0):
        noisy = noise_generator.generate(clean, reference=pair(64, 64, sigma), seed=0)
        assert (noisy - clean).std() * 255 == pytest.approx(sigma, rel=0.1)


@pytest.mark.parametrize("shape", [(32, 32), (40, 24)])
def test_grey_images(noise_generator: NoiseGenerator, shape: tuple[int, int]) -> None:
    grey = picture(*shape)[..., 0]
    flat = noise_generator.generate(grey, reference=REFERENCE, seed=1)
    assert flat.shape == shape
    with_axis = noise_generator.generate(grey[..., None], reference=REFERENCE, seed=1)
    np.testing.assert_array_equal(with_axis[..., 0], flat)
    assert (flat != grey).mean() > 0.3


def test_grey_reference(noise_generator: NoiseGenerator) -> None:
    noisy, clean = (image[..., 0] for image in REFERENCE)
    for target in (CLEAN, CLEAN[..., 0]):
        made = noise_generator.generate(target, reference=(noisy, clean), seed=1)
        assert made.shape == target.shape
        assert (made != target).any()


@pytest.mark.parametrize("size", [(32, 32), (72, 100)])
def test_a_sample_does_not_depend_on_its_batch(noise_generator: NoiseGenerator, size: tuple[int, int]) -> None:
    images = np.stack([picture(*size, seed=s) for s in range(3)])
    references = [pair(seed=s) for s in range(3)]
    stacked = tuple(np.stack(part) for part in zip(*references, strict=True))
    together = noise_generator.generate(images, reference=stacked, seed=[5, 6, 7])
    for k in range(3):
        alone = noise_generator.generate(images[k], reference=references[k], seed=[5 + k])
        np.testing.assert_array_equal(together[k], alone)


def test_images_that_share_calls_of_the_network_are_those_drawn_alone(
    noise_generator: NoiseGenerator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an accelerator does, done here: up to rounding, since a reference's share is not split off."""
    pairs = [pair(88, 72, seed=seed) for seed in range(5)]
    clean = np.stack([clean for _, clean in pairs]).astype(np.float32) / 255
    prompts = [noise_generator.prompts(*pair)[0] for pair in pairs]
    alone = noise_generator.generate(clean, prompts=prompts, seed=[3, 1, 4, 1, 5])
    monkeypatch.setattr(NoiseGenerator, "_images_per_call", lambda self, height, width: 2)
    together = noise_generator.generate(clean, prompts=prompts, seed=[3, 1, 4, 1, 5])
    for k, seed in enumerate([3, 1, 4, 1, 5]):  # nor does a sample there depend on what it shares calls with
        np.testing.assert_array_equal(noise_generator.generate(clean[k], prompts=prompts[k], seed=[seed]), together[k])
    noise = alone - clean
    assert np.abs(together - alone).max() < 0.05 * np.abs(noise).max()
    assert np.sqrt(np.square(together - alone).mean()) < 0.01 * noise.std()


def test_seeds(noise_generator: NoiseGenerator) -> None:
    def make(seed: object, count: int = 1) -> np.ndarray:
        return noise_generator.generate(np.stack([CLEAN] * count), reference=REFERENCE, seed=seed)  # type: ignore[arg-type]

    np.testing.assert_array_equal(make(1), make(1))
    assert (make(1) != make(2)).mean() > 0.2
    both = make(1, 2)
    assert (both[0] != both[1]).mean() > 0.2
    np.testing.assert_array_equal(both, make([derive_seed(1, 0), derive_seed(1, 1)], 2))
    np.testing.assert_array_equal(make(np.int64(1)), make(1))
    np.testing.assert_array_equal(make(np.array([4, 5]), 2), make([4, 5], 2))


def test_the_global_random_state_plays_no_part(noise_generator: NoiseGenerator) -> None:
    torch.manual_seed(1)
    first = noise_generator.generate(CLEAN, reference=REFERENCE)
    state = torch.get_rng_state()
    torch.manual_seed(2)
    np.testing.assert_array_equal(noise_generator.generate(CLEAN, reference=REFERENCE), first)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", [(17, 30), (8, 8), (5, 41), (1, 1)])
def test_any_size(noise_generator: NoiseGenerator, size: tuple[int, int]) -> None:
    clean = picture(*size)
    noisy = noise_generator.generate(clean, reference=REFERENCE)
    assert noisy.shape == clean.shape


@pytest.mark.parametrize("size", [(100, 70), (32, 90), (150, 40)])
def test_larger_than_a_tile(noise_generator: NoiseGenerator, size: tuple[int, int]) -> None:
    clean = np.full((*size, 3), 128, np.uint8) / 255
    noise = noise_generator.generate(clean, reference=REFERENCE) - clean
    # Every 16 x 16 part carries noise of about one strength: no gaps and no double weight.
    parts = [
        noise[y : y + 16, x : x + 16].std() for y in range(0, size[0] - 15, 16) for x in range(0, size[1] - 15, 16)
    ]
    assert min(parts) > 0.3 * max(parts) > 0


@pytest.mark.parametrize("size", [(16, 16), (33, 50), (96, 24)])
def test_reference_of_another_size(noise_generator: NoiseGenerator, size: tuple[int, int]) -> None:
    noisy = noise_generator.generate(CLEAN, reference=pair(*size))
    assert noisy.shape == CLEAN.shape
    assert (noisy != CLEAN).any()


def test_stored_prompts_equal_their_reference(noise_generator: NoiseGenerator) -> None:
    expected = noise_generator.generate(CLEAN, reference=REFERENCE, seed=2)
    stored = noise_generator.prompts(*REFERENCE)
    assert len(stored) == 1
    assert all(v.dtype == torch.float32 for v in stored[0].values())
    np.testing.assert_array_equal(noise_generator.generate(CLEAN, prompts=stored, seed=2), expected)
    np.testing.assert_array_equal(noise_generator.generate(CLEAN, prompts=stored[0], seed=2), expected)
    other = noise_generator.prompts(*pair(sigma=20, seed=4))
    assert (noise_generator.generate(CLEAN, prompts=other, seed=2) != expected).any()


def test_one_reference_serves_a_batch_and_a_list_is_a_pair(noise_generator: NoiseGenerator) -> None:
    images = np.stack([CLEAN, picture(32, 32, seed=9)])
    made = noise_generator.generate(images, reference=REFERENCE, seed=[3, 4])
    stored = noise_generator.prompts(*REFERENCE)[0]
    np.testing.assert_array_equal(made, noise_generator.generate(images, prompts=[stored, stored], seed=[3, 4]))
    np.testing.assert_array_equal(made, noise_generator.generate(images, reference=list(REFERENCE), seed=[3, 4]))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("as_torch", [False, True])
def test_noise_alone_as_reference(noise_generator: NoiseGenerator, dtype: str, as_torch: bool) -> None:
    clean = picture(64, 64) / 255
    noise = np.random.default_rng(0).normal(0, 6 / 255, (48, 48, 3)).astype(dtype)
    reference = torch.from_numpy(noise) if as_torch else noise
    made = noise_generator.generate(clean, reference=reference, seed=0) - clean
    assert made.std() * 255 == pytest.approx(6, rel=0.1)
    # Its dependence on intensity is unknown: dark and bright halves are equally noisy.
    assert made[:, :32].std() == pytest.approx(made[:, 32:].std(), rel=0.3)


def test_eight_bit_noise_alone_equals_its_pair_on_grey(noise_generator: NoiseGenerator) -> None:
    grey = np.full((48, 48, 3), 128, np.uint8)
    noisy = (grey + np.random.default_rng(0).normal(0, 3, grey.shape).round()).astype(np.uint8)
    alone = (noisy.astype(np.float32) - grey) / 255
    a = noise_generator.prompts(noisy, grey)[0]
    b = noise_generator.generate(CLEAN / 255, reference=alone, seed=1)
    np.testing.assert_allclose(b, noise_generator.generate(CLEAN / 255, prompts=a, seed=1), atol=1e-3)


def test_inputs_are_left_as_they_were(noise_generator: NoiseGenerator) -> None:
    clean = torch.from_numpy(CLEAN.transpose(2, 0, 1) / 255).float()
    noisy, reference_clean = (torch.from_numpy(i.transpose(2, 0, 1) / 255).float() for i in REFERENCE)
    copies = [t.clone() for t in (clean, noisy, reference_clean)]
    noise_generator.generate(clean, reference=(noisy, reference_clean))
    assert all(torch.equal(a, b) for a, b in zip(copies, (clean, noisy, reference_clean), strict=True))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of reference"),
        ({"reference": REFERENCE, "prompts": [{}]}, "exactly one of reference"),
        ({"prompts": []}, "1 clean images but 0 prompts"),
        ({"reference": REFERENCE, "seed": [1, 2]}, "1 clean images but 2 seeds"),
        ({"reference": (REFERENCE[0], REFERENCE[1][:-8])}, "the noisy image has shape .*, but the clean image"),
        ({"reference": REFERENCE[:1]}, "reference has 1 items; expected a pair \\(noisy, clean\\)"),
        ({"reference": pair(8, 40)}, "at least 16 x 16"),
        ({"reference": REFERENCE[0]}, "reference noise .*use a float array in \\[-1, 1\\]"),
        ({"reference": np.full((32, 32, 3), np.nan, np.float32)}, "reference noise .*NaN"),
        ({"reference": (REFERENCE[0], REFERENCE[1] / 100)}, "reference clean: .*got"),
        ({"prompts": [{"global_0": torch.zeros(4)}]}, "prompts: .*missing"),
    ],
)
def test_refusals(noise_generator: NoiseGenerator, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        noise_generator.generate(CLEAN, **arguments)


def test_a_batch_needs_one_or_as_many_references(noise_generator: NoiseGenerator) -> None:
    stored = noise_generator.prompts(*REFERENCE)
    with pytest.raises(UserError, match="3 clean images but 2 prompts"):
        noise_generator.generate(np.stack([CLEAN] * 3), prompts=stored * 2)


@pytest.mark.parametrize("prompts", ["none", "global"])
@pytest.mark.parametrize("whitening", ["none", "moments"])
def test_variants_generate(smallest: Callable[..., ModelConfig], awake, prompts: str, whitening: str) -> None:
    torch.manual_seed(0)
    made = NoiseGenerator(awake(NoiseModel(smallest(prompts=prompts, whitening=whitening))))
    noisy = made.generate(CLEAN, reference=REFERENCE)
    assert noisy.shape == CLEAN.shape
    assert (noisy != CLEAN).any()


def test_uncalibrated_is_the_network_alone(noise_generator: NoiseGenerator) -> None:
    alone = noise_generator.uncalibrated()
    noisy, clean = pair()
    drawn = [g.generate(clean, reference=(noisy, clean), seed=1) for g in (noise_generator, alone)]
    assert not np.array_equal(*drawn)
    assert not {"sampled_covariance", "colour_target"} & set(alone.prompts(noisy, clean)[0])
    assert noise_generator.model.config.calibration == "spectrum"  # the other is left as it was
