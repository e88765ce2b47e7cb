"""Small datasets in the layouts that their owners ship, and Prefect's test server."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; workers of local clusters inherit it
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
os.environ.setdefault("PREFECT_SERVER_LOGGING_LEVEL", "ERROR")

import json
import shutil
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tifffile
import torch
from numpy.typing import NDArray
from PIL import Image

from tasks.corpus.gate import load_rules
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.plan import CorpusParameters, CorpusPlan, evaluated_pairs, is_baseline, plan_corpus
from tasks.corpus.publish import Published, judge, publish
from tasks.evaluation.noise import EvaluateParameters, evaluate_noise
from tasks.runtime.clusters import ClusterConfig, open_cluster
from tasks.stores.corpus_store import writer
from tasks.stores.io.filesystem import encode_json, open_array, sha256
from tasks.stores.io.tables import decode_table, encode_table
from tasks.stores.layout import ARRAYS

torch.set_num_threads(1)

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Pair = tuple[Pixels, Pixels]
RULES = """\
dataset: tiny_pairs
licence: CC0
noisy: noisy/(?P<pair>(?P<scene>[a-z]+)_(?P<iso>\\d+)_\\d+)\\.(png|tif)
clean: clean/(?P<pair>.+)\\.(png|tif)
cases:
  - {match: 'street_.*', camera: GP}
  - {match: '.*_2', split: validation}
"""


def make_pair(
    seed: int, height: int = 96, width: int = 96, channels: int = 3, dtype: str = "uint8", strength: float = 1.0
) -> Pair:
    """(noisy, clean), (H, W, C): a smooth scene with texture; noise grows with intensity and is blurred in space."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    scene = 0.45 + 0.25 * np.sin(x / 17 + seed) * np.cos(y / 23) + 0.02 * rng.standard_normal((height, width))
    clean = np.clip(scene[..., None] * np.linspace(0.8, 1.1, channels), 0.05, 0.9)
    white = rng.standard_normal((height + 1, width + 1, channels))
    grain = (white[:-1, :-1] + white[1:, :-1] + white[:-1, 1:] + white[1:, 1:]) / 2
    noisy = np.clip(clean + strength * grain * (0.01 + 0.05 * clean), 0, 1)
    peak = np.iinfo(dtype).max
    return (noisy * peak).round().astype(dtype), (clean * peak).round().astype(dtype)


def write_image(path: Path, pixels: Pixels) -> None:
    """PNG, JPEG or TIFF by the name's end."""
    path.parent.mkdir(parents=True, exist_ok=True)
    flat = pixels[..., 0] if pixels.ndim == 3 and pixels.shape[-1] == 1 else pixels
    if path.suffix in (".tif", ".tiff"):
        tifffile.imwrite(path, flat, photometric="rgb" if flat.ndim == 3 else "minisblack")
    else:
        Image.fromarray(flat).save(path, quality=95)


@pytest.fixture(scope="session")
def pair() -> Callable[..., Pair]:
    """:func:`make_pair` as a fixture."""
    return make_pair


@pytest.fixture(scope="session")
def save() -> Callable[[Path, Pixels], None]:
    """:func:`write_image` as a fixture."""
    return write_image


@pytest.fixture
def sidd_small(tmp_path: Path) -> Path:
    """SIDD-Small sRGB with three instances of two scenes."""
    root = tmp_path / "SIDD_Small_sRGB_Only"
    names = ("0001_001_S6_00100_00060_3200_L", "0002_001_GP_00800_00350_3200_N", "0003_002_IP_00400_00350_5500_H")
    for seed, name in enumerate(names):
        noisy, clean = make_pair(seed, 80, 96)
        write_image(root / "Data" / name / "NOISY_SRGB_010.PNG", noisy)
        write_image(root / "Data" / name / "GT_SRGB_010.PNG", clean)
    (root / "Scene_Instances.txt").write_text("\n".join(names))
    return root


@pytest.fixture
def sidd_medium(tmp_path: Path) -> Path:
    """SIDD-Medium sRGB: two frames of each of two instances."""
    root = tmp_path / "SIDD_Medium_Srgb"
    for seed, name in enumerate(("0001_001_S6_00100_00060_3200_L", "0002_003_G4_01600_00350_3200_N")):
        for frame in ("010", "011"):
            noisy, clean = make_pair(10 * seed + int(frame), 48, 48)
            write_image(root / "Data" / name / f"{name[:4]}_NOISY_SRGB_{frame}.PNG", noisy)
            write_image(root / "Data" / name / f"{name[:4]}_GT_SRGB_{frame}.PNG", clean)
    return root


@pytest.fixture(scope="session")
def tiny_dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Made once, copied by the fixtures below: paired folder, YAML rules, catalogue and patch store."""
    from tasks.datasets.extraction import Geometry, extract_patches
    from tasks.datasets.ingest import ingest

    top = tmp_path_factory.mktemp("tiny")
    for seed, name in enumerate(("street_100_1", "street_800_2", "wall_100_1", "wall_100_2")):
        noisy, clean = make_pair(seed)
        write_image(top / "pairs" / "noisy" / f"{name}.png", noisy)
        write_image(top / "pairs" / "clean" / f"{name}.png", clean)
    (top / "pairs" / "notes.txt").write_text("not an image")
    (top / "rules.yaml").write_text(RULES)
    ingest(str(top / "pairs"), str(top / "rules.yaml"), str(top / "catalogue"))
    extract_patches(str(top / "catalogue"), str(top / "patches"), geometry=Geometry(size=32), shard=8)
    return top


@pytest.fixture
def folders(tiny_dataset: Path, tmp_path: Path) -> tuple[Path, Path]:
    """A paired folder of four 96 x 96 images and the YAML rules that read it."""
    shutil.copytree(tiny_dataset / "pairs", tmp_path / "pairs")
    shutil.copy(tiny_dataset / "rules.yaml", tmp_path)
    return tmp_path / "pairs", tmp_path / "rules.yaml"


@pytest.fixture
def catalogue(tiny_dataset: Path, folders: tuple[Path, Path], tmp_path: Path) -> str:
    """The catalogue of :func:`folders`."""
    found = tmp_path / "catalogue"
    shutil.copytree(tiny_dataset / "catalogue", found)
    table = decode_table((found / "catalogue.parquet").read_bytes(), "catalogue.parquet")
    for side in ("noisy", "clean"):
        moved = [url.replace(str(tiny_dataset), str(tmp_path)) for url in table[side].to_pylist()]
        table = table.set_column(table.schema.get_field_index(side), side, pa.array(moved))
    (found / "catalogue.parquet").write_bytes(encode_table(table))
    record = json.loads((found / "catalogue.json").read_text().replace(str(tiny_dataset), str(tmp_path)))
    record["table_sha256"] = sha256((found / "catalogue.parquet").read_bytes())
    (found / "catalogue.json").write_bytes(encode_json(record))
    return str(found)


@pytest.fixture
def patches(tiny_dataset: Path, catalogue: str, tmp_path: Path) -> str:
    """The patch store of :func:`catalogue`: 36 patches of 32 x 32 in 8 shards, an image's 9 in two."""
    shutil.copytree(tiny_dataset / "patches", tmp_path / "patches")
    return str(tmp_path / "patches")


@pytest.fixture
def parameters(patches: str, folders: Any) -> Callable[..., CorpusParameters]:
    """Parameters of a corpus of 36 clean patches in shards of 8; keywords change fields."""

    def make(output: Any, **changes: Any) -> CorpusParameters:
        fields = {"model": "heteroscedastic", "references": patches, "clean": str(folders[0] / "clean")}
        return CorpusParameters(**(fields | {"output": str(output), "crop": 32, "shard": 8} | changes))

    return make


@pytest.fixture(scope="session")
def tree() -> Callable[[str | Path], dict[str, bytes]]:
    """All files below a folder with their contents, without the one that says where a corpus' sources lay."""

    def read(root: str | Path) -> dict[str, bytes]:
        files = (p for p in sorted(Path(root).rglob("*")) if p.is_file() and p.name != "sources.json")
        return {str(p.relative_to(root)): p.read_bytes() for p in files}

    return read


@pytest.fixture(scope="session")
def rows_of() -> Callable[[CorpusPlan], list[dict[str, Any]]]:
    """The rows of all parts of a corpus whose shards are made, in order of the pairs."""

    def read(plan: CorpusPlan) -> list[dict[str, Any]]:
        store = writer(plan.parameters.output, plan.layout, plan.recipe)
        return [row for index in range(plan.layout.shards) for row in store.part(index)[1].to_pylist()]

    return read


@pytest.fixture(scope="session")
def images_of() -> Callable[[CorpusPlan], tuple[np.ndarray, np.ndarray]]:
    """Clean images (N, ...) and noisy ones (draws, N, ...) of such a corpus, by zarr."""

    def read(plan: CorpusPlan) -> tuple[np.ndarray, np.ndarray]:
        for location, content in plan.layout.documents().items():
            (Path(plan.parameters.output) / location).write_bytes(content)
        clean, noisy = (np.asarray(open_array(f"{plan.parameters.output}/{name}")[:]) for name in ARRAYS)
        return clean, noisy

    return read


@pytest.fixture(scope="session")
def made() -> Callable[[CorpusParameters], tuple[Published, dict[str, int]]]:
    """What the flow does, without Prefect."""

    def run(parameters: CorpusParameters) -> tuple[Published, dict[str, int]]:
        plan = plan_corpus(parameters)
        shards = make_corpus_shards(plan)
        with open_cluster(ClusterConfig()) as cluster:
            judged = judge(plan, load_rules(parameters.gate, baseline=is_baseline(parameters)), cluster)
        measured = EvaluateParameters(model=parameters.model, limit=2, baselines=False, **evaluated_pairs(plan))
        return publish(plan, judged, evaluate_noise(measured)), shards

    return run


@pytest.fixture(scope="session")
def corpora(tiny_dataset: Path, made: Callable[[CorpusParameters], Any]) -> Callable[[int], Path]:
    """Published corpora of the tiny dataset by scale: each is made once per process, and copied by ``published``."""

    @cache
    def make(scale: int) -> Path:
        output = tiny_dataset / f"corpus-{scale}"
        locations = {"references": str(tiny_dataset / "patches"), "clean": str(tiny_dataset / "pairs" / "clean")}
        made(CorpusParameters(model="heteroscedastic", output=str(output), crop=32, shard=8, scale=scale, **locations))
        return output

    return make


@pytest.fixture
def published(
    corpora: Callable[[int], Path], tiny_dataset: Path, folders: tuple[Path, Path], patches: str
) -> Callable[..., Path]:
    """What ``made(parameters(output, scale=scale))`` publishes, as a copy."""

    def copy(output: Any, scale: int = 1) -> Path:
        original, found = corpora(scale), Path(output)
        shutil.copytree(original, found)
        sources = (found / "sources.json").read_text().replace(str(original), str(found))
        (found / "sources.json").write_text(sources.replace(str(tiny_dataset), str(folders[0].parent)))
        return found

    return copy


@pytest.fixture(scope="session")
def prefect_server() -> Iterator[None]:
    """Prefect's own temporary server and database, for tests that run flows."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=120):
        yield
