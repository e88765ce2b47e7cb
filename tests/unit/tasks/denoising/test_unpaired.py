"""Stores whose clean side is estimated: what changes and what does not, resuming, and everything that runs on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio

from pngmodel.denoisers import Denoiser, DenoiserConfig, ImageDenoiser, build
from pngmodel.errors import IntegrityError, UserError
from pngmodel.images import from_unit, to_unit
from tasks.corpus.inspection import inspect, verify
from tasks.datasets.extraction import Geometry, extract_patches, finalise
from tasks.datasets.ingest import ingest
from tasks.datasets.reference_pairs import open_pairs
from tasks.denoising import unpaired
from tasks.denoising.unpaired import EstimateParameters, ShardTask, denoised, estimate_clean, make_shard
from tasks.evaluation.noise import EvaluateParameters, evaluate_noise
from tasks.models.denoisers import denoiser_digest, load_denoiser
from tasks.stores.commits import part_name
from tasks.stores.io.listing import list_files
from tasks.stores.patch_store import PatchStore
from tasks.training.samples import StoreSamples

UNCHANGED = ("patch", "slot", "pair", "dataset", "scene", "camera", "iso", "split", "licence", "y", "x", "data_range")


def made(store: str, output: Path | str, **changes: Any) -> dict[str, Any]:
    return estimate_clean(EstimateParameters(store=store, output=str(output), **changes))


def test_noisy_images_and_rows_stay_and_clean_ones_are_the_denoisers(patches: str, tmp_path: Path) -> None:
    steps: list[tuple[int, int]] = []
    url = str(tmp_path / "unpaired")
    result = estimate_clean(EstimateParameters(store=patches, output=url), lambda d, n: steps.append((d, n)))
    assert (result["patches"], result["shards"], result["made"]) == (36, 8, 8)
    assert steps == [(k, 8) for k in range(9)]
    source, store = PatchStore.open(patches), PatchStore.open(url)
    assert verify(url)["digest"] == result["digest"] == store.digest
    assert store.licence == source.licence == "CC0"
    assert store.layout == source.layout
    estimate = store.record.recipe["estimated_clean"]
    assert (estimate["source"], estimate["denoiser"]) == (source.digest, "nlm")
    assert {k: v for k, v in store.record.recipe.items() if k != "estimated_clean"} == source.record.recipe
    assert store.record.statistics.patches == source.record.statistics.patches
    theirs, ours = source.table.to_pylist(), store.table.to_pylist()
    assert [[r[n] for n in UNCHANGED] for r in ours] == [[r[n] for n in UNCHANGED] for r in theirs]
    nlm = load_denoiser("nlm", "cpu", denoiser_digest("nlm"))
    gains = []
    for k in range(36):
        (clean, noisy), (truth, shown) = store.read(k), source.read(k)
        np.testing.assert_array_equal(noisy, shown)
        x, kind = to_unit(noisy)
        np.testing.assert_array_equal(clean, from_unit(nlm.run(x), kind))
        difference = (noisy.astype(float) - clean) / 255
        np.testing.assert_allclose(ours[k]["noise_std"], difference.std(axis=(1, 2)), atol=1e-6)
        gains.append(peak_signal_noise_ratio(truth, clean) - peak_signal_noise_ratio(truth, noisy))
    assert np.mean(gains) > 0  # nearer to the truth, which it never saw


def test_clean_images_are_not_looked_at(folders: Any, catalogue: str, tmp_path: Path, tree: Callable) -> None:
    """The estimates come out the same when the clean objects of the source are gone; clean images alone are refused."""
    root = folders[0]
    (tmp_path / "alone").mkdir()
    for path in (root / "noisy").iterdir():
        (tmp_path / "alone" / path.name).write_bytes(path.read_bytes())
    ingest(
        str(tmp_path / "alone"),
        "clean",
        str(tmp_path / "single"),
    )
    for name, source in (("pairs", catalogue), ("single", str(tmp_path / "single"))):
        extract_patches(source, str(tmp_path / f"store-{name}"), geometry=Geometry(size=32), shard=8)
    made(str(tmp_path / "store-pairs"), tmp_path / "out")
    # what holds clean images alone holds no noisy ones
    with pytest.raises(UserError, match="contains only clean images, no noisy; give a store"):
        made(str(tmp_path / "store-single"), tmp_path / "other")
    whole = PatchStore.open(str(tmp_path / "out"))
    blind = PatchStore.open(str(tmp_path / "store-pairs"))
    for path in list((tmp_path / "store-pairs" / "clean").rglob("0")):
        if path.is_file():
            path.unlink()
    made(blind.url, tmp_path / "again")
    assert tree(tmp_path / "again") == tree(whole.url)


@pytest.mark.parametrize(("dtype", "channels"), [("uint8", 1), ("uint16", 3), ("float32", 3)])
def test_levels_of_every_kind(pair: Callable, dtype: str, channels: int) -> None:
    noisy, _ = pair(0, 48, 48, channels, dtype if dtype != "float32" else "uint16")
    stored = np.moveaxis(noisy, -1, 0)
    scale = 1.0
    if dtype == "float32":
        scale = 4095.0
        stored = (stored / np.float32(65535) * np.float32(scale)).astype(np.float32)
        stored[0, 0, 0] = -3.0  # floats may lie beyond their range
    torch.manual_seed(0)
    network: ImageDenoiser = Denoiser(build(DenoiserConfig(name="dncnn", settings={"width": 8, "depth": 3})), name="n")
    found = denoised(stored, scale, network)
    assert (found.dtype, found.shape) == (stored.dtype, stored.shape)
    full = {"uint8": 255, "uint16": 65535, "float32": scale}[dtype]
    x = to_unit(np.clip(stored.astype(np.float64) / full, 0, 1).astype(np.float32))[0]
    expected = network.run(x)[0].numpy() * full
    assert np.abs(found.astype(np.float64) - expected).max() <= (0.5 if dtype != "float32" else 1e-2) + 1e-2
    assert found.min() >= 0
    assert found.max() <= full


def test_resuming_and_parts(patches: str, tmp_path: Path, tree: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    made(patches, tmp_path / "whole")
    whole = tree(tmp_path / "whole")
    again = made(patches, tmp_path / "whole")
    assert again["made"] == 0

    # killed in the middle of a shard: after some of its objects
    real, calls = unpaired.ShardWriter.write, []

    def write(self: Any, index: int, *rest: Any) -> None:
        calls.append(index)
        if len(calls) == 4:
            raise KeyboardInterrupt
        real(self, index, *rest)

    monkeypatch.setattr(unpaired.ShardWriter, "write", write)
    with pytest.raises(KeyboardInterrupt):
        made(patches, tmp_path / "resumed")
    monkeypatch.undo()
    with pytest.raises(UserError, match="the store is not finished"):
        PatchStore.open(str(tmp_path / "resumed"))
    assert made(patches, tmp_path / "resumed")["made"] == 5
    assert tree(tmp_path / "resumed") == whole

    parts = str(tmp_path / "parts")
    assert made(patches, parts, parts="2/3")["shards"] == 3
    with pytest.raises(UserError, match=r"5 of 8 parts are missing"):
        finalise(parts)
    made(patches, parts, parts="1/3")
    made(patches, parts, parts="3/3", cluster={"kind": "local", "workers": 1})
    assert finalise(parts)["patches"] == 36
    assert tree(parts) == whole


def test_what_is_refused(patches: str, tmp_path: Path, catalogue: str) -> None:
    with pytest.raises(UserError, match="missing: there is no store"):
        made(str(tmp_path / "nothing"), tmp_path / "out")
    with pytest.raises(UserError, match=r"none.*digest\.json: missing"):
        made(patches, tmp_path / "out", denoiser=str(tmp_path / "none"))
    with pytest.raises(UserError, match=r"config\.json: format 'pngnoise-model'"):
        made(patches, tmp_path / "out", denoiser="shipped")
    assert not (tmp_path / "out").exists()
    with pytest.raises(UserError, match=r"holds a different patch store; different settings: .*recipe"):
        made(patches, patches)
    made(patches, tmp_path / "out")
    store = PatchStore.open(str(tmp_path / "out"))
    task = ShardTask(store.url, "another plan", patches, store.record.recipe["estimated_clean"]["source"], (), 0)  # type: ignore[arg-type]
    with pytest.raises(IntegrityError, match="the store has changed since this run was planned"):
        make_shard(task)


def test_everything_runs_on_it(patches: str, tmp_path: Path) -> None:
    url = str(tmp_path / "unpaired")
    made(patches, url)
    assert inspect(url)["recipe"]["estimated_clean"]["denoiser"] == "nlm"
    paired, estimated = open_pairs(patches), open_pairs(url)
    assert [r.id for r in paired.references] == [r.id for r in estimated.references]
    # other pixels are other references: a prompt bank or corpus of the one is none of the other
    assert not {r.content for r in paired.references} & {r.content for r in estimated.references}
    assert len({r.content for r in estimated.references}) == 36
    record = evaluate_noise(
        EvaluateParameters(model="heteroscedastic", references=url, limit=2, baselines=False)
    ).record
    assert record["pairs"] == 2
    assert {part_name(k) for k in range(8)} <= set(list_files(url))
    assert isinstance(PatchStore.open(url).table, pa.Table)
    from pngmodel.network.presets import preset
    from pngmodel.training.settings import DataSettings

    samples = StoreSamples([PatchStore.open(url)], "train", DataSettings(region=32), preset("tiny"), seed=0)
    batch = samples.of(crop=32, reference_crop=None).__getitems__([0, 1, 2])
    assert batch.noise.shape == (3, 3, 32, 32)
