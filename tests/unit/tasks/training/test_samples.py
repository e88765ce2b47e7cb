"""Training samples from a store: functions of (seed, number), aligned, on the sensor's phase, drawn by weight."""

from __future__ import annotations

import pickle
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from pngmodel.errors import UserError
from pngmodel.network.presets import PRESETS, ModelConfig
from pngmodel.training.samples import BatchNumbers, NoiseBatch, load_batches
from pngmodel.training.settings import DataSettings, Randomisation, StageSettings
from tasks.datasets.extraction import Geometry, extract_patches
from tasks.datasets.ingest import IngestSettings, ingest
from tasks.stores.patch_store import PatchStore
from tasks.training.samples import StoreSamples

PLAIN = PRESETS["tiny"].model_copy(update={"whitening": "none", "decorrelation": "none", "calibration": "none"})
SIDE = 64


def address_image(index: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Clean pixels tell where they are: red the image, green the row, blue the column; the noise is their tenth."""
    y, x = np.meshgrid(np.arange(side), np.arange(side), indexing="ij")
    clean = np.stack([np.full((side, side), 40 * index + 20), 3 * y + 10, 3 * x + 10], axis=-1)
    return (clean + clean // 10).astype(np.uint8), clean.astype(np.uint8)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Four images that tell places, as a store of whole images."""
    root = tmp_path_factory.mktemp("addresses")
    for side in ("noisy", "clean"):
        (root / "data" / side).mkdir(parents=True)
    for k in range(4):
        for side, image in zip(("noisy", "clean"), address_image(k), strict=True):
            Image.fromarray(image).save(root / "data" / side / f"{k}.png")
    ingest(str(root / "data"), "folders", str(root / "catalogue"), settings=IngestSettings(max_shift=100))
    extract_patches(str(root / "catalogue"), str(root / "patches"), geometry=Geometry(size=SIDE), shard=2)
    return str(root / "patches")


@pytest.fixture
def samples(store: str) -> Callable[..., StoreSamples]:
    def make(
        *, crop: int = 16, reference: int | None = None, model: ModelConfig = PLAIN, seed: int = 1, **data: Any
    ) -> StoreSamples:
        fields = {"region": 32, "crops": 4, "mix": 2, "flips": False} | data
        made = StoreSamples([PatchStore.open(store)], "train", DataSettings(**fields), model, seed=seed)
        return made.of(crop=crop, reference_crop=reference)

    return make


def levels(clean: Tensor) -> Tensor:
    return ((clean + 1) / 2 * 255).round()


def equal(a: NoiseBatch, b: NoiseBatch) -> bool:
    return all(torch.equal(getattr(a, name), getattr(b, name)) for name in ("noise", "clean", "reference", "numbers"))


def test_a_sample_is_a_function_of_seed_and_number(samples: Callable[..., StoreSamples]) -> None:
    randomise = Randomisation(resample=(0.7, 1.4), gain=(0.8, 1.2), gamma=(0.9, 1.1), jpeg=0.5)
    fields: dict[str, Any] = {"randomise": randomise, "flips": True, "reference": 16}
    whole = samples(**fields).__getitems__(range(40))
    backwards = samples(**fields)
    for number in reversed(range(40)):
        alone = backwards.__getitems__([number])
        assert torch.equal(alone.noise[0], whole.noise[number])
        assert torch.equal(alone.reference[0], whole.reference[number])
    assert not torch.equal(samples(seed=2, **fields).__getitems__(range(40)).clean, whole.clean)


def test_other_processes_make_the_same_batches(samples: Callable[..., StoreSamples]) -> None:
    settings = StageSettings(steps=6, batch=8, crop=16)
    numbers = BatchNumbers(settings, start=2)
    here = list(load_batches(samples(), numbers, 0))
    elsewhere = list(load_batches(samples(), numbers, 2))
    assert [int(batch.numbers[0]) for batch in here] == [16, 24, 32, 40]
    assert all(equal(a, b) for a, b in zip(here, elsewhere, strict=True))


def test_what_travels_to_a_worker_is_small(samples: Callable[..., StoreSamples]) -> None:
    used = samples()
    used.__getitems__(range(64))
    assert len(pickle.dumps(used)) < 10_000


def test_noise_and_clean_are_cut_at_one_even_place(samples: Callable[..., StoreSamples]) -> None:
    batch = samples().__getitems__(range(256))
    clean = levels(batch.clean)
    # Noise of this set is the tenth of the clean level, in model units twice its fraction of 255.
    torch.testing.assert_close(batch.noise, 2 * torch.floor(clean / 10) / 255, atol=1e-5, rtol=0)
    assert torch.equal(batch.noise, batch.reference)
    corner = (clean[:, 1:, 0, 0] - 10) / 3
    assert set((corner % 2).flatten().tolist()) == {0.0}
    for axis in (0, 1):
        assert {0.0, float(SIDE - 16)} <= set(corner[:, axis].tolist())


def test_the_reference_is_another_crop_of_the_same_region(samples: Callable[..., StoreSamples]) -> None:
    batch = samples(reference=24).__getitems__(range(64))
    assert batch.reference.shape == (64, 3, 24, 24)
    image = levels(batch.clean)[:, 0, 0, 0]
    torch.testing.assert_close(batch.reference[:, 0, 0, 0], 2 * torch.floor(image / 10) / 255, atol=1e-5, rtol=0)
    assert not torch.equal(batch.reference[:, :, :16, :16], batch.noise)


def test_regions_are_mixed_and_each_is_used_as_often_as_wanted(samples: Callable[..., StoreSamples]) -> None:
    made = samples(crops=4, mix=3)
    regions = Counter(made._region_of(n) for n in range(12, 24))
    assert regions == {3: 4, 4: 4, 5: 4}
    assert [made._region_of(n) for n in range(12, 24)] != sorted(made._region_of(n) for n in range(12, 24))


def test_a_flipped_pair_stays_a_pair(samples: Callable[..., StoreSamples]) -> None:
    batch = samples(flips=True, crop=32, crops=1, mix=1).__getitems__(range(64))
    clean = levels(batch.clean)
    torch.testing.assert_close(batch.noise, 2 * torch.floor(clean / 10) / 255, atol=1e-5, rtol=0)
    ends = [(c[k, -1, 0] - c[k, 0, 0], c[k, 0, -1] - c[k, 0, 0]) for c in clean for k in (1, 2)]
    directions = torch.tensor(ends).sign().reshape(64, 4)
    assert len({tuple(row) for row in directions.tolist()}) == 8


def test_weights_are_shares_of_datasets(store: str, tmp_path: Path, patches: str) -> None:
    stores = [PatchStore.open(store), PatchStore.open(patches)]
    names = [s.table.column("dataset").to_pylist()[0] for s in stores]
    assert names[0] != names[1]
    data = DataSettings(weights={names[0]: 0.7, names[1]: 0.3}, region=32)
    made = StoreSamples(stores, "train", data, PLAIN, seed=0)
    drawn = Counter(made._patch(n).store for n in range(2000))
    assert drawn[store] / 2000 == pytest.approx(0.7, abs=0.04)  # standard error .01
    none = StoreSamples(stores, "train", data.model_copy(update={"weights": {names[0]: 0, names[1]: 1}}), PLAIN, seed=0)
    assert {none._patch(n).store for n in range(200)} == {patches}


def test_whitened_units(samples: Callable[..., StoreSamples], patches: str) -> None:
    made = StoreSamples([PatchStore.open(patches)], "train", DataSettings(region=32), PRESETS["tiny"], seed=0)
    batch = made.of(crop=32, reference_crop=None).__getitems__(range(32))
    assert float(batch.noise.std()) == pytest.approx(1, abs=0.15)
    assert float(batch.reference.std()) == pytest.approx(1, abs=0.15)
    assert not torch.equal(batch.noise, batch.reference)


def test_a_region_larger_than_the_patch_is_the_patch(samples: Callable[..., StoreSamples]) -> None:
    assert samples(region=256, crop=64).__getitems__(range(4)).clean.shape == (4, 3, 64, 64)


def test_refusals(store: str, samples: Callable[..., StoreSamples]) -> None:
    opened = [PatchStore.open(store)]
    with pytest.raises(UserError, match="no patches of split 'nothing'"):
        StoreSamples(opened, "nothing", DataSettings(), PLAIN, seed=0)
    for weights, message in (
        ({"c": 1.0}, r"has weights for \['c'\], but the stores contain"),
        ({"data": 0.0}, "sum to 0"),
    ):
        with pytest.raises(UserError, match=f"data.weights: .*{message}"):
            StoreSamples(opened, "train", DataSettings(weights=weights), PLAIN, seed=0)
    with pytest.raises(UserError, match="crop: 40 pixels is larger than the smallest region; use at most 32"):
        samples(crop=40)
    assert "cropped from" in samples().describe(range(20))
