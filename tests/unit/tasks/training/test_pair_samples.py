"""Training samples of pairs: where each comes from, and that nothing but its number decides it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pngmodel.errors import UserError
from tasks.denoising.stored_pairs import StoredPairs
from tasks.stores.corpus_store import Corpus
from tasks.stores.patch_store import PatchStore
from tasks.training.pair_samples import FreshPairs, PairSamples, flip_rotate
from tasks.training.pair_sources import GeneratedPairs, RealPairs


def samples(real=(), synthetic=(), **changes) -> PairSamples:
    return PairSamples(real, synthetic, **({"share": 0.0, "crop": 16, "flips": True, "seed": 0} | changes))


@pytest.fixture
def corpus(made, parameters, patches: str, tmp_path: Path) -> str:
    """Two draws on the patches' own clean side."""
    made(parameters(tmp_path / "corpus", clean=patches, reference_policy="own", scale=2))
    return str(tmp_path / "corpus")


def test_a_sample_is_a_window_of_a_pair(patches: str) -> None:
    store = PatchStore.open(patches)
    found = samples([RealPairs(patches, None)], flips=False).__getitems__([3])
    noisy, clean = (np.rint(x[0].numpy() * 255).astype(np.uint8) for x in (found.noisy, found.clean))
    locations = [
        (row, y, x)
        for row in range(len(store))
        for y in range(0, 17)
        for x in range(0, 17)
        if np.array_equal(store.read(row)[0][:, y : y + 16, x : x + 16], clean)
    ]
    assert len(locations) == 1
    row, y, x = locations[0]
    assert (y % 2, x % 2) == (0, 0)
    assert np.array_equal(store.read(row)[1][:, y : y + 16, x : x + 16], noisy)


def test_numbers_decide_and_nothing_else(patches: str, corpus: str) -> None:
    def made_of() -> PairSamples:
        return samples([RealPairs(patches, None)], [StoredPairs(corpus)], share=0.5)

    together = made_of().__getitems__(range(12))
    other = copy.copy(made_of())  # what a worker gets
    for number in reversed(range(12)):
        alone = other.__getitems__([number])
        assert torch.equal(alone.noisy[0], together.noisy[number])
        assert torch.equal(alone.clean[0], together.clean[number])
    assert not torch.equal(samples([RealPairs(patches, None)], seed=1).__getitems__([0]).clean[0], together.clean[0])


def test_the_share_is_a_probability_whatever_the_sizes(patches: str, corpus: str) -> None:
    real, synthetic = RealPairs(patches, "validation"), StoredPairs(corpus)
    assert len(synthetic) == 4 * len(real)
    mixed = samples([real], [synthetic], share=0.5)
    kinds = [mixed._location(number)[0] is synthetic for number in range(1000)]
    assert 0.45 < np.mean(kinds) < 0.55
    assert all(samples([real], [synthetic], share=1.0)._location(n)[0] is synthetic for n in range(50))
    assert not any(samples([real], [synthetic], share=0.0)._location(n)[0] is synthetic for n in range(50))


def test_sources_of_one_side_are_drawn_by_size(patches: str) -> None:
    small, large = RealPairs(patches, "validation"), RealPairs(patches, None)
    drawn = [samples([small, large])._location(n)[:2] for n in range(4000)]
    share = np.mean([source is small for source, _ in drawn])
    assert share == pytest.approx(len(small) / (len(small) + len(large)), abs=0.03)
    assert {index for source, index in drawn if source is large} == set(range(len(large)))


def test_trainings_of_one_seed_see_the_same_clean_windows(patches: str, corpus: str) -> None:
    real = samples([RealPairs(patches, None)]).__getitems__(range(24))
    for source in (GeneratedPairs(patches, None, "awgn"), StoredPairs(corpus), StoredPairs(corpus, repeats=1)):
        made = samples(synthetic=[source], share=1.0).__getitems__(range(24))
        assert torch.equal(real.clean, made.clean)
        assert not torch.equal(real.noisy, made.noisy)


def test_noise_on_the_fly_is_new_for_every_sample_and_on_levels(patches: str) -> None:
    source = GeneratedPairs(patches, "train", "heteroscedastic")
    first, second = (source.crop(0, 16, torch.Generator().manual_seed(5), seed) for seed in (1, 2))
    assert torch.equal(first[1], second[1])
    assert not torch.equal(first[0], second[0])
    again = copy.copy(source).crop(0, 16, torch.Generator().manual_seed(5), 1)
    assert torch.equal(again[0], first[0])
    levels = first[0] * 255
    torch.testing.assert_close(levels, levels.round(), atol=1e-4, rtol=0)
    real = RealPairs(patches, "train").crop(0, 16, torch.Generator().manual_seed(5), 0)
    assert float((first[0] - first[1]).std()) == pytest.approx(float((real[0] - real[1]).std()), rel=0.4)


def test_the_first_draws_of_a_corpus(corpus: str) -> None:
    whole, first = StoredPairs(corpus), StoredPairs(corpus, repeats=1)
    rows = Corpus.open(corpus).manifest()
    repeats = np.concatenate([part.column("repeat").to_numpy() for part in rows])
    assert (len(whole), len(first)) == (72, 36)
    assert set(repeats[first._data.pairs]) == {0}
    assert len({whole.digest, first.digest}) == 2
    with pytest.raises(UserError, match="has 2 samples per clean image, but repeats is 3"):
        StoredPairs(corpus, repeats=3)


@pytest.mark.parametrize("workers", [0, 2])
def test_fresh_noise_every_epoch_whatever_the_workers(patches: str, workers: int) -> None:
    pairs = FreshPairs(GeneratedPairs(patches, "train", "awgn"), crop=16, flips=False, seed=4)
    context = "spawn" if workers else None

    def epoch(number: int) -> torch.Tensor:
        pairs.set_epoch(number)
        loader = DataLoader(pairs, 6, num_workers=workers, multiprocessing_context=context)
        batches = [batch["noisy"] - batch["clean"] for batch in loader]
        return torch.cat(batches)

    first, second, again = epoch(0), epoch(1), epoch(0)
    assert len(first) == len(RealPairs(patches, "train"))
    assert torch.equal(first, again)
    assert not torch.equal(first, second)
    # Two draws of white noise share nothing; the same noise at another place would.
    assert abs(float(torch.corrcoef(torch.stack([first.flatten(), second.flatten()]))[0, 1])) < 0.05
    alone = FreshPairs(GeneratedPairs(patches, "train", "awgn"), crop=16, flips=False, seed=4)[5]
    assert torch.equal(alone["noisy"] - alone["clean"], first[5])


def test_the_eight_turns_are_different_and_complete() -> None:
    image = torch.arange(12.0).reshape(1, 2, 6)[:, :, :2].contiguous()
    found = {tuple(flip_rotate(image, kind).flatten().tolist()) for kind in range(8)}
    assert len(found) == 8


def test_what_cannot_be_drawn_from(patches: str) -> None:
    real = RealPairs(patches, "train")
    with pytest.raises(UserError, match="no synthetic pairs"):
        samples([real], share=0.5)
    with pytest.raises(UserError, match="no real pairs"):
        samples(share=0.0)
    with pytest.raises(UserError, match="crop: 64 pixels is larger than the patches; use at most 32"):
        samples([real], crop=64)
    assert samples([real]).describe(range(3)).startswith("cropped from ")
