"""Training batches: pure functions of (seed, step), drawn by weight, aligned, on the sensor's phase."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.training.samples import TrainingPair, WhitenedPairs, resampled
from pngmodel.training.settings import DataSettings


def address_pair(index: int, side: int = 32, dataset: str = "a") -> TrainingPair:
    """Clean pixels tell where they are: red the image, green the row, blue the column; noise repeats them."""
    y, x = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    clean = torch.stack([torch.full((side, side), float(index)), y, x]) / 255
    return TrainingPair(clean + clean / 8, clean, dataset)


def pairs_of(*datasets: str, side: int = 32, **settings: object) -> WhitenedPairs:
    pairs = [address_pair(i, side, d) for i, d in enumerate(datasets)]
    return WhitenedPairs(pairs, "none", DataSettings(**settings))


def addresses(clean: Tensor) -> Tensor:
    """(B, 3): image, row and column of each crop's first pixel."""
    return ((clean[:, :, 0, 0] + 1) / 2 * 255).round().long()


def test_a_batch_is_a_function_of_seed_and_step() -> None:
    pairs = pairs_of("a", "a", "a")
    again = pairs_of("a", "a", "a")
    made = pairs.batch(7, batch=6, crop=16, reference_crop=16, seed=1)
    pairs.batch(8, batch=6, crop=16, reference_crop=16, seed=1)
    for other in (pairs, again):
        repeated = other.batch(7, batch=6, crop=16, reference_crop=16, seed=1)
        assert torch.equal(made.noise, repeated.noise)
        assert torch.equal(made.clean, repeated.clean)
        assert torch.equal(made.reference, repeated.reference)
    for step, seed in ((8, 1), (7, 2)):
        assert not torch.equal(pairs.batch(step, batch=6, crop=16, reference_crop=16, seed=seed).clean, made.clean)


def test_noise_and_clean_are_cut_at_one_place() -> None:
    batch = pairs_of("a", "a").batch(0, batch=16, crop=16, reference_crop=None, seed=0)
    # Noise of this set is clean / 8 in image units: 2 / 8 of the clean level in model units.
    torch.testing.assert_close(batch.noise, (batch.clean + 1) / 2 / 4, atol=1e-5, rtol=0)
    assert batch.reference is batch.noise


def test_reference_is_another_crop_of_the_same_image() -> None:
    batch = pairs_of("a", "a", "a").batch(0, batch=32, crop=16, reference_crop=24, seed=0)
    assert batch.reference.shape == (32, 3, 24, 24)
    image = (batch.reference[:, 0, 0, 0] * 4 * 255).round().long()
    assert torch.equal(image, addresses(batch.clean)[:, 0])
    assert not torch.equal(batch.reference[:, :, :16, :16], batch.noise)


def test_reference_larger_than_the_patch_is_the_whole_patch() -> None:
    batch = pairs_of("a", side=24).batch(0, batch=2, crop=16, reference_crop=128, seed=0)
    assert batch.reference.shape == (2, 3, 24, 24)


def test_crops_start_at_even_pixels_and_reach_every_place() -> None:
    pairs = pairs_of("a", side=24)
    found = torch.cat(
        [addresses(pairs.batch(k, batch=32, crop=16, reference_crop=None, seed=0).clean) for k in range(8)]
    )
    for axis in (1, 2):
        assert sorted(set(found[:, axis].tolist())) == [0, 2, 4, 6, 8]


def test_a_crop_as_large_as_the_patch() -> None:
    batch = pairs_of("a", side=32).batch(0, batch=2, crop=32, reference_crop=None, seed=0)
    assert addresses(batch.clean)[:, 1:].tolist() == [[0, 0], [0, 0]]


def counts(pairs: WhitenedPairs, images: int, draws: int = 2000) -> list[float]:
    batch = pairs.batch(0, batch=draws, crop=16, reference_crop=None, seed=3)
    return (torch.bincount(addresses(batch.clean)[:, 0], minlength=images).double() / draws).tolist()


def test_weights_are_shares_of_datasets() -> None:
    # a has one image, b has three: a's quarter of the patches becomes .7 of the draws. Standard error .01.
    share = counts(pairs_of("a", "b", "b", "b", weights={"a": 0.7, "b": 0.3}), 4)
    assert share[0] == pytest.approx(0.7, abs=0.04)
    assert share[1:] == pytest.approx([0.1] * 3, abs=0.03)


def test_without_weights_every_patch_is_as_likely() -> None:
    assert counts(pairs_of("a", "b", "b", "b"), 4) == pytest.approx([0.25] * 4, abs=0.04)


def test_a_weight_of_zero_leaves_a_dataset_out() -> None:
    assert counts(pairs_of("a", "b", weights={"a": 0.0, "b": 1.0}), 2) == [0, 1]


def test_scales_add_resampled_pairs() -> None:
    pairs = pairs_of("a", "a", side=40, scales=(1.0, 0.6, 1.6))
    assert len(pairs) == 6
    assert pairs.batch(0, batch=4, crop=24, reference_crop=None, seed=0).noise.shape == (4, 3, 24, 24)


def test_resampling_keeps_alignment_and_levels() -> None:
    pair = address_pair(3, side=40)
    assert resampled(pair, 1.0) is pair
    for factor, side in ((0.6, 24), (1.6, 64), (0.1, 16)):
        small = resampled(pair, factor)
        assert small.clean.shape == small.noisy.shape == (3, side, side)
        levels = small.noisy * 255
        torch.testing.assert_close(levels, levels.round(), atol=1e-3, rtol=0)
        # The image is linear in place, so its resampling is too; the noise stays clean / 8 to a level.
        torch.testing.assert_close(small.noisy, small.clean * 9 / 8, atol=1.2 / 255, rtol=0)


def test_whitened_units(correlated) -> None:
    clean = torch.linspace(0.2, 0.8, 64 * 64).reshape(1, 64, 64).expand(3, -1, -1)
    pair = TrainingPair(clean + 0.02 * correlated(64, 64), clean, "a")
    batch = WhitenedPairs([pair], "quantiles", DataSettings()).batch(0, batch=4, crop=48, reference_crop=None, seed=0)
    assert float(batch.noise.std()) == pytest.approx(1, abs=0.1)
    assert -1 <= float(batch.clean.min()) <= float(batch.clean.max()) <= 1


def test_progress_counts_pairs() -> None:
    seen: list[int] = []
    WhitenedPairs(iter([address_pair(0), address_pair(1)]), "none", DataSettings(scales=(1.0, 0.6)), seen.append)
    assert seen == [1, 2]


def test_refusals() -> None:
    with pytest.raises(UserError, match="no pairs"):
        WhitenedPairs([], "none", DataSettings())
    with pytest.raises(UserError, match=r"data.weights: no dataset named \['c'\]; found \['a', 'b'\]"):
        pairs_of("a", "b", weights={"c": 1.0})
    with pytest.raises(UserError, match=r"data.weights: .*\['b'\]"):
        pairs_of("a", "b", weights={"a": 0.5})
    with pytest.raises(UserError, match="crop 40 is larger than the smallest training patch, 32 pixels"):
        pairs_of("a").batch(0, batch=1, crop=40, reference_crop=None, seed=0)
    with pytest.raises(UserError, match=r"data.weights: .*sum"):
        pairs_of("a", weights={"a": 0.0})
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        DataSettings(weights={"a": -1.0})
    with pytest.raises(ValidationError, match="greater than 0"):
        DataSettings(scales=(0.0,))
    with pytest.raises(ValidationError, match="scales"):
        DataSettings(scales=())
