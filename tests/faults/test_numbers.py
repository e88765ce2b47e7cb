"""Numbers at their edges: a documented result, or an error in words; never NaN, never a traceback."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import torch
import yaml

from pngmodel import NoiseGenerator
from pngmodel.baselines import BASELINES
from pngmodel.errors import UserError
from pngmodel.interface import NoisyImageGenerator
from pngmodel.metrics.fidelity import psnr, ssim
from pngmodel.metrics.protocols import METRICS, noise_metrics
from tasks.corpus.plan import CorpusParameters
from tasks.datasets.catalogue import load_catalogue
from tasks.datasets.extraction import Geometry, extract_patches
from tasks.datasets.ingest import IngestSettings, ingest
from tasks.models.denoisers import NonLocalMeans
from tasks.stores.patch_store import PatchStore
from tests.commands import run

pytestmark = pytest.mark.filterwarnings("error::RuntimeWarning")
CHECKOUT = Path(__file__).resolve().parents[2]
SIDE = 32
RANDOM = np.random.default_rng(0)
RAMP = np.broadcast_to(np.linspace(0, 255, SIDE).round()[None, :, None], (SIDE, SIDE, 3)).astype(np.uint8)
BLACK, WHITE = np.zeros_like(RAMP), np.full_like(RAMP, 255)


def noisy(image: np.ndarray, std: float) -> np.ndarray:
    return (image + RANDOM.standard_normal(image.shape) * std).round().clip(0, 255).astype(np.uint8)


REFERENCES = {
    "no noise": (RAMP, RAMP),
    "black": (BLACK, BLACK),
    "white": (WHITE, WHITE),
    "noise on black": (noisy(BLACK, 8), BLACK),
    "noise on white": (noisy(WHITE, 8), WHITE),
    "noise of full scale": (noisy(RAMP, 255), RAMP),
    "inverted": (255 - RAMP, RAMP),
    "black for white": (BLACK, WHITE),
    "smallest": (noisy(RAMP, 8)[:16, :16], RAMP[:16, :16]),
}
CLEAN = {"black": BLACK, "white": WHITE, "ramp": RAMP, "1 x 1": RAMP[:1, :1], "1 x N": RAMP[:1], "N x 1": RAMP[:, :1]}
SILENT = ("no noise", "black", "white")


@pytest.fixture(scope="module")
def generators() -> dict[str, NoisyImageGenerator]:
    return {"png": NoiseGenerator.from_pretrained()} | {name: make() for name, make in BASELINES.items()}


@pytest.mark.parametrize("reference", list(REFERENCES))
def test_generated_images_are_images(generators: dict[str, NoisyImageGenerator], reference: str) -> None:
    """Same shape and dtype, finite, in range; from a reference without noise at most a level of it on 8 bits."""
    for name, generator in generators.items():
        prompts = generator.prompts(*REFERENCES[reference])[0]
        assert all(bool(torch.isfinite(value).all()) for value in prompts.values()), (name, reference)
        for kind, clean in CLEAN.items():
            made = generator.generate(clean, prompts=prompts, seed=1)
            assert (made.shape, made.dtype) == (clean.shape, np.uint8), (name, reference, kind)
            if reference in SILENT:
                assert np.abs(made.astype(int) - clean).max() <= 1, (name, reference, kind)
            unit = generator.generate((clean / 255).astype(np.float32), prompts=prompts, seed=1)
            assert np.isfinite(unit).all(), (name, reference, kind)
            assert 0 <= unit.min() <= unit.max() <= 1, (name, reference, kind)


@pytest.mark.parametrize("side", [(1, 1), (1, 40), (40, 1), (7, 7)])
def test_tiny_references_are_imitated_or_refused(
    generators: dict[str, NoisyImageGenerator], side: tuple[int, int]
) -> None:
    clean = RANDOM.integers(0, 255, (*side, 3), np.uint8)
    for name, generator in generators.items():
        if name in ("png", "polyphase_matched"):
            with pytest.raises(UserError, match="is too small"):
                generator.generate(RAMP, (clean, clean))
        else:
            assert generator.generate(RAMP, (noisy(clean, 8), clean)).shape == RAMP.shape


BAD = {
    "NaN": (np.full((20, 20, 3), np.nan, np.float32), "has NaN or infinite values"),
    "infinite": (np.full((20, 20, 3), -np.inf), "has NaN or infinite values"),
    "beyond float32": (np.full((20, 20, 3), 1e300), "has NaN or infinite values"),
    "below 0": (np.full((20, 20, 3), -1e-3), r"must be in \[0, 1\]"),
    "beyond 1": (np.full((20, 20, 3), 1.001), r"must be in \[0, 1\]"),
    "no pixels": (np.zeros((0, 20, 3), np.uint8), "the image is empty"),
    "no columns": (np.zeros((20, 0), np.float32), "the image is empty"),
    "nothing": (np.zeros(0, np.uint8), "is not an image"),
}


@pytest.mark.parametrize("kind", list(BAD))
def test_unusable_images_are_refused_on_every_side(generators: dict[str, NoisyImageGenerator], kind: str) -> None:
    image, words = BAD[kind]
    for generator in generators.values():
        with pytest.raises(UserError, match=rf"clean: .*{words}"):
            generator.generate(image, (RAMP, RAMP))
        with pytest.raises(UserError, match=rf"reference noisy: .*{words}"):
            generator.generate(RAMP, (image, RAMP))
    with pytest.raises(UserError, match=rf"noisy: .*{words}"):
        NonLocalMeans().denoise(image)


def test_prompts_and_seeds_that_are_no_numbers_are_refused(generators: dict[str, NoisyImageGenerator]) -> None:
    for generator in generators.values():
        prompts = generator.prompts(noisy(RAMP, 8), RAMP)[0]
        for name, value in prompts.items():
            for bad in (math.nan, math.inf):
                with pytest.raises(UserError, match=f"prompts: {name} has NaN or infinite values"):
                    generator.generate(RAMP, prompts={**prompts, name: torch.full_like(value, bad)})
        for seed in (1.5, math.nan, "x", None, [1.5]):
            with pytest.raises(UserError, match=r"seed is .* expected an int"):
                generator.generate(RAMP, prompts=prompts, seed=seed)
        for seed in (-1, 2**64, 2**200):  # every whole number is one
            assert generator.generate(RAMP, prompts=prompts, seed=seed).shape == RAMP.shape


def planes(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.moveaxis(image, -1, 0) / np.float32(255))


def test_figures_of_edge_images_are_numbers() -> None:
    """Every metric of every combination is finite; of three equal images all errors are 0 and the std ratio is 1."""
    images = [planes(image) for image in (BLACK, WHITE, RAMP, noisy(RAMP, 12), noisy(RAMP, 255))]
    for real in images:
        for made in images:
            for clean in images:
                metrics = noise_metrics(real, made, clean)
                assert set(metrics) == set(METRICS)
                assert all(map(math.isfinite, metrics.values())), metrics
    same = noise_metrics(images[0], images[0], images[0])
    assert same == dict.fromkeys(same, 0.0) | {"std_ratio": 1.0}


def test_fidelity_of_equal_images_is_infinite_and_one() -> None:
    for image in map(planes, (BLACK, WHITE, RAMP)):
        assert (psnr(image, image), ssim(image, image)) == (math.inf, pytest.approx(1))
    assert (psnr(planes(BLACK), planes(WHITE)), ssim(planes(BLACK), planes(WHITE))) == (0, pytest.approx(0, abs=1e-3))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_metrics_refuse_what_is_no_number(bad: float) -> None:
    image = planes(RAMP)
    spoilt = image.clone()
    spoilt[1, 2, 3] = bad
    for images in ((spoilt, image, image), (image, spoilt, image), (image, image, spoilt)):
        with pytest.raises(UserError, match=r"metrics: .* has NaN or infinite values"):
            noise_metrics(*images)
    with pytest.raises(UserError, match="metrics: image has NaN"):
        psnr(spoilt, image)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 1, 64), (3, 0, 64), (3, 15, 15), (64, 64)])
def test_metrics_refuse_what_has_no_neighbours(shape: tuple[int, ...]) -> None:
    image = torch.zeros(shape)
    with pytest.raises(UserError, match="at least 16 x 16"):
        noise_metrics(image, image, image)


@pytest.mark.parametrize("level", [0, 100, 255])
def test_non_local_means_leaves_flat_images_and_refuses_tiny_ones(level: int) -> None:
    for shape in ((SIDE, SIDE, 3), (4, 4, 1)):
        flat = np.full(shape, level, np.uint8)
        np.testing.assert_array_equal(NonLocalMeans().denoise(flat), flat)
    for shape in ((1, 1, 3), (1, 40, 3), (3, 3, 1)):
        with pytest.raises(UserError, match="too few to estimate its noise"):
            NonLocalMeans().denoise(np.full(shape, level, np.uint8))


@pytest.fixture
def edges(tmp_path: Path, save: Callable, pair: Callable) -> Path:
    """A paired folder of ordinary pairs and of edge cases, named by what they are."""
    root = tmp_path / "edges"
    sides = {
        "ordinary": pair(0, 64, 64),
        "one": pair(1, 1, 1),
        "row": pair(2, 1, 64),
        "column": pair(3, 64, 1),
        "black": (np.zeros((64, 64, 3), np.uint8),) * 2,
        "white": (np.full((64, 64, 3), 255, np.uint8),) * 2,
        "loud": (noisy(pair(4, 64, 64)[1], 255), pair(4, 64, 64)[1]),
        "half": tuple(np.concatenate([image, np.full_like(image, 255)]) for image in pair(5, 64, 64)),
    }
    for name, images in sides.items():
        for side, image in zip(("noisy", "clean"), images, strict=True):
            save(root / side / f"{name}.png", image)
    return root


def test_edge_pairs_are_catalogued_or_rejected_with_a_reason(edges: Path, tmp_path: Path) -> None:
    result = ingest(str(edges), "folders", str(tmp_path / "catalogue"), IngestSettings())
    rows = {row["pair"]: row for row in load_catalogue(str(tmp_path / "catalogue"))[0].to_pylist()}
    reasons = {rejected["id"]: rejected["reason"] for rejected in result["rejected"]}
    assert set(rows) | set(reasons) == {p.stem for p in (edges / "noisy").iterdir()}
    assert {"ordinary", "loud", "half"} <= set(rows)
    assert {"black", "white"} <= set(reasons)
    assert all("is constant" in reasons[name] or "same pixels" in reasons[name] for name in ("black", "white"))
    for row in rows.values():
        numbers = [v for value in row.values() for v in (value if isinstance(value, list) else [value])]
        assert all(math.isfinite(v) for v in numbers if isinstance(v, float)), row


def test_patches_of_edge_pairs_have_numbers_for_statistics(edges: Path, tmp_path: Path) -> None:
    ingest(str(edges), "folders", str(tmp_path / "catalogue"), IngestSettings())
    extract_patches(str(tmp_path / "catalogue"), str(tmp_path / "patches"), geometry=Geometry(size=32), shard=8)
    store = PatchStore.open(str(tmp_path / "patches"))
    table = store.table.to_pylist()
    assert {row["pair"] for row in table} == {"ordinary", "loud", "half"}
    assert {row["saturated"] for row in table if row["pair"] == "half"} >= {1.0}
    for row in table:
        numbers = [v for value in row.values() for v in (value if isinstance(value, list) else [value])]
        assert all(math.isfinite(v) for v in numbers if isinstance(v, float)), row


@pytest.mark.parametrize("bad", [math.nan, math.inf, -1.0, 1e35])
def test_floats_that_are_no_levels_are_rejected_at_ingest(
    edges: Path, tmp_path: Path, pair: Callable, bad: float
) -> None:
    for side, image in zip(("noisy", "clean"), pair(6, 64, 64), strict=True):
        pixels = image.astype(np.float32) / 255
        pixels[5, 6, 1] = bad if side == "noisy" else pixels[5, 6, 1]
        tifffile.imwrite(edges / side / "float.tif", pixels)
    result = ingest(str(edges), "folders", str(tmp_path / "catalogue"), IngestSettings())
    reason = next(rejected["reason"] for rejected in result["rejected"] if rejected["id"] == "float")
    assert any(words in reason for words in ("NaN or infinite", "negative values", "is allowed"))
    assert "float.tif" in reason


@pytest.mark.parametrize("clean", ["black", "white", "half"])
def test_a_corpus_on_edge_images_is_made(
    edges: Path, tmp_path: Path, save: Callable, made: Callable, clean: str
) -> None:
    """Black and white take noise on one side. References too small to be measured are left out of its figures."""
    ingest(str(edges), "folders", str(tmp_path / "catalogue"), IngestSettings())
    images = {"black": BLACK, "white": WHITE, "half": np.concatenate([RAMP, WHITE])}
    for k in range(4):
        save(tmp_path / "clean" / f"{k}.png", images[clean])
    parameters: dict[str, Any] = {"references": str(tmp_path / "catalogue"), "clean": str(tmp_path / "clean")}
    corpus = CorpusParameters(
        model="heteroscedastic", output=str(tmp_path / "corpus"), crop=32, shard=8, override_gate="edges", **parameters
    )
    published, _ = made(corpus)
    assert all(map(math.isfinite, published.metrics["model"].values()))


@pytest.mark.filterwarnings("default::RuntimeWarning")  # of Prefect, whose server this starts
def test_a_training_that_diverges_ends_in_words(prefect_server: None, patches: str, tmp_path: Path) -> None:
    """The command line: exit code 2, step and samples and checkpoint in words, no traceback."""
    found = yaml.safe_load((CHECKOUT / "configs" / "denoisers" / "tiny.yaml").read_text())
    found["train"] |= {"learning_rate": 1e30, "final_learning_rate": None, "crop": 16, "batch": 2, "steps": 20}
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(found))
    given = ["train-denoiser", str(tmp_path / "c.yaml"), "--real", patches, "--output", str(tmp_path / "out")]
    ended = run(*given, "--seeds", 0)
    told = " ".join(ended.stderr.split())
    assert ended.exit_code == 2, ended
    assert re.search(r"error: denoiser: loss \S+, gradient norm \S+ at step \d+, samples \d+ to .*checkpoints", told)
    assert "Traceback" not in told
