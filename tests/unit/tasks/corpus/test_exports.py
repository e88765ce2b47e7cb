"""Exports: opened by the readers they are made for, compared pixel for pixel, resumed, refused."""

from __future__ import annotations

import io
import json
import struct
import sys
import tarfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import yaml
from numpy.typing import NDArray
from PIL import Image

from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.exports import FORMATS
from tasks.corpus.exports.card import licence_keys
from tasks.corpus.exports.export import ExportParameters, export_corpus
from tasks.corpus.exports.folders import FOLDERS
from tasks.corpus.exports.images import encode_image, refuse_codec
from tasks.corpus.exports.lmdb import map_size
from tasks.corpus.exports.pairs import CorpusPairs
from tasks.corpus.exports.protocol import ExportTask, Settings, Share
from tasks.corpus.exports.webdataset import encode_row
from tasks.corpus.inspection import inspect, kind_of, verify
from tasks.corpus.plan import CorpusParameters
from tasks.datasets.ingest import ingest
from tasks.stores.corpus_store import Corpus

Pixels = NDArray[Any]
Tree = Callable[[Any], dict[str, bytes]]
KINDS = {"rgb8": ("uint8", 3), "rgb16": ("uint16", 3), "grey16": ("uint16", 1)}
FORMAT_NAMES = list(FORMATS)
RULES = """\
dataset: tiny
licence: CC0
noisy: noisy/(?P<pair>(?P<scene>[a-z]+)_(?P<iso>\\d+)_\\d+)\\.tif
clean: clean/(?P<pair>.+)\\.tif
cases:
  - {match: '.*', camera: GP}
"""


@pytest.fixture(scope="module")
def corpora(tmp_path_factory: Any, pair: Any, save: Any, made: Any) -> Callable[[str], Corpus]:
    """Corpora by kind: 8 pairs of 32 x 32 in shards of 3, some of them rejected by a strict gate."""

    @cache
    def make(kind: str) -> Corpus:
        dtype, channels = KINDS[kind]
        root: Path = tmp_path_factory.mktemp(kind)
        for seed in range(2):
            noisy, clean = pair(seed, 64, 64, channels, dtype)
            for side, pixels in (("noisy", noisy), ("clean", clean)):
                save(root / side / f"wall_100_{seed}.tif", pixels)
        (root / "rules.yaml").write_text(RULES)
        (root / "gate.yaml").write_text("std_ratio: [0.985, 1.015]\nmax_rejected_share: 1.0\nmax_lag1_error: null\n")
        ingest(str(root), str(root / "rules.yaml"), str(root / "catalogue"))
        fields = {"references": str(root / "catalogue"), "clean": str(root / "clean"), "gate": str(root / "gate.yaml")}
        published, _ = made(
            CorpusParameters(output=str(root / "corpus"), model="heteroscedastic", crop=32, shard=3, **fields)
        )
        assert 0 < published.rejected < 8
        return Corpus.open(str(root / "corpus"))

    return make


@pytest.fixture(params=KINDS)
def corpus(request: Any, corpora: Callable[[str], Corpus]) -> Corpus:
    return corpora(request.param)


@pytest.fixture
def rgb8(corpora: Callable[[str], Corpus]) -> Corpus:
    return corpora("rgb8")


def export(corpus: Corpus, output: Any, form: str, **changes: Any) -> dict[str, Any]:
    return export_corpus(ExportParameters(corpus=corpus.url, output=str(output), format=form, **changes))  # type: ignore[arg-type]


def accepted(corpus: Corpus) -> dict[int, dict[str, Any]]:
    rows = corpus.table.to_pylist()
    return {row["sample"]: row for row in rows if row["accepted"]}


def decoded(content: bytes) -> Pixels:
    """(C, H, W) by a decoder that is not the encoder's: Pillow, and for 16 bits the PNG specification."""
    width, height, depth, colour = struct.unpack(">IIBB", content[16:26])
    if depth == 8:
        pixels = np.asarray(Image.open(io.BytesIO(content)))
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)
    channels = 3 if colour == 2 else 1
    packed, location = b"", 8
    while location < len(content):
        (length,) = struct.unpack(">I", content[location : location + 4])
        if content[location + 4 : location + 8] == b"IDAT":
            packed += content[location + 8 : location + 8 + length]
        location += 12 + length
    step = 2 * channels  # bytes from a value to the one on its left
    rows = [bytearray(step * (width + 1)) for _ in range(height + 1)]
    for y, line in enumerate(np.frombuffer(zlib.decompress(packed), np.uint8).reshape(height, -1).tolist(), 1):
        assert line[0] == 3  # the average filter
        for k, value in enumerate(line[1:], step):
            rows[y][k] = (value + (rows[y][k - step] + rows[y - 1][k]) // 2) % 256
    values = np.array([np.frombuffer(row[step:], ">u2") for row in rows[1:]]).astype(np.uint16)
    return np.moveaxis(values.reshape(height, width, channels), -1, 0)


def same(corpus: Corpus, number: int, clean: Pixels, noisy: Pixels) -> None:
    for found, expected in zip((clean, noisy), corpus.read(number), strict=True):
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_webdataset_reads_the_tars(corpus: Corpus, tmp_path: Path) -> None:
    import webdataset

    result = export(corpus, tmp_path / "e", "webdataset")
    rows = accepted(corpus)
    assert (result["pairs"], result["skipped"]) == (len(rows), 8 - len(rows))
    location = f"{tmp_path}/e/corpus-{{000000..000002}}.tar"
    seen = []
    for sample in webdataset.WebDataset(location, shardshuffle=False):
        number = int(sample["__key__"])
        seen.append(number)
        same(corpus, number, decoded(sample["clean.png"]), decoded(sample["noisy.png"]))
        assert json.loads(sample["json"]) == rows[number]
    assert seen == sorted(rows)
    if corpus.layout.dtype == "uint8":
        ready = webdataset.WebDataset(location, shardshuffle=False).decode("rgb8").to_tuple("clean.png", "noisy.png")
        for number, images in zip(sorted(rows), ready, strict=True):
            same(corpus, number, *(np.moveaxis(image, -1, 0) for image in images))


@pytest.mark.parametrize("layout", FOLDERS)
def test_folders_pair_by_name_as_basicsr_pairs_them(corpus: Corpus, tmp_path: Path, layout: str) -> None:
    export(corpus, tmp_path / "e", "folders", layout=layout)
    gt, lq = ((tmp_path / "e" / FOLDERS[layout][side]) for side in ("clean", "noisy"))
    names = sorted(path.name for path in gt.iterdir())
    assert names == sorted(path.name for path in lq.iterdir()) == [f"{n:08d}.png" for n in sorted(accepted(corpus))]
    for name in names:
        same(corpus, int(name[:8]), decoded((gt / name).read_bytes()), decoded((lq / name).read_bytes()))
    meta = tmp_path / "e" / "meta_info.txt"
    if layout == "basicsr":
        assert meta.read_text().splitlines() == [f"{n} (32,32,{corpus.layout.channels})" for n in names]
    else:
        assert not meta.exists()


def test_tiff_folders(rgb8: Corpus, tmp_path: Path) -> None:
    export(rgb8, tmp_path / "e", "folders", codec="tiff")
    for number in accepted(rgb8):
        sides = (np.asarray(Image.open(tmp_path / "e" / side / f"{number:08d}.tiff")) for side in ("gt", "lq"))
        same(rgb8, number, *(np.moveaxis(side, -1, 0) for side in sides))


@pytest.mark.parametrize(("layout", "sides"), [("basicsr", ("gt", "lq")), ("nafnet", ("gt_crops", "input_crops"))])
def test_lmdb_by_the_rules_of_basicsr(corpus: Corpus, tmp_path: Path, layout: str, sides: tuple[str, str]) -> None:
    import lmdb

    export(corpus, tmp_path / "e", "lmdb", layout=layout)
    root = tmp_path / "e" / ("train" if layout == "nafnet" else "")
    assert sorted(p.name for p in root.iterdir() if p.suffix == ".lmdb") == [f"{side}.lmdb" for side in sides]
    keys, open_databases = [], []
    for side in sides:
        folder = root / f"{side}.lmdb"
        lines = (folder / "meta_info.txt").read_text().splitlines()
        keys.append([line.split(".")[0] for line in lines])
        assert {line.split(".", 1)[1] for line in lines} == {f"png (32,32,{corpus.layout.channels}) 1"}
        open_databases.append(lmdb.open(str(folder), readonly=True, lock=False, readahead=False))
    assert keys[0] == keys[1] == [f"{n:08d}" for n in sorted(accepted(corpus))]
    for database in open_databases:
        assert database.stat()["entries"] == len(keys[0])
    for key in keys[0]:
        images = []
        for database in open_databases:
            with database.begin(write=False) as transaction:
                images.append(decoded(transaction.get(key.encode("ascii"))))
        same(corpus, int(key), *images)
    for database in open_databases:
        database.close()


def test_hugging_face_datasets_opens_images(corpus: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(tmp_path / "home"))
    import datasets

    datasets.disable_progress_bars()
    export(corpus, tmp_path / "e", "parquet")
    rows = accepted(corpus)
    found = datasets.load_dataset(str(tmp_path / "e"), cache_dir=str(tmp_path / "cache"))["train"]
    assert found.features["clean"] == found.features["noisy"] == datasets.Image()
    assert found["sample"] == sorted(rows)
    raw = found.cast_column("clean", datasets.Image(decode=False)).cast_column("noisy", datasets.Image(decode=False))
    for item in raw:
        same(corpus, item["sample"], decoded(item["clean"]["bytes"]), decoded(item["noisy"]["bytes"]))
        row = rows[item["sample"]]
        assert {k: item[k] for k in row if k != "clean"} | {"clean": item["clean_source"]} == row
    if (corpus.layout.dtype, corpus.layout.channels) != KINDS["rgb16"]:  # which Pillow has no mode for
        for item in found:
            images = (np.atleast_3d(np.asarray(item[side])) for side in ("clean", "noisy"))
            same(corpus, item["sample"], *(np.moveaxis(i, -1, 0).astype(corpus.layout.dtype) for i in images))
    card = yaml.safe_load((tmp_path / "e" / "README.md").read_text().split("---")[1])
    assert card | licence_keys(corpus.licence) == card
    assert card["dataset_info"]["splits"][0]["num_examples"] == len(rows)
    stream = datasets.load_dataset("parquet", data_files=f"{tmp_path}/e/data/*.parquet", split="train", streaming=True)
    assert [item["sample"] for item in stream] == sorted(rows)


@pytest.mark.parametrize("form", FORMAT_NAMES)
def test_a_lost_or_damaged_file_is_made_again_byte_for_byte(
    rgb8: Corpus, tmp_path: Path, tree: Tree, form: str
) -> None:
    first = export(rgb8, tmp_path / "e", form)
    before = tree(tmp_path / "e")
    export(rgb8, tmp_path / "elsewhere", form)
    assert tree(tmp_path / "elsewhere") == before
    again = export(rgb8, tmp_path / "e", form)
    assert again["shares"] == {"made": 0, "kept": first["shares"]["made"]}
    files = [n for n in sorted(before) if not n.startswith(".export") and n not in ("README.md", "export.json")]
    lost, damaged = tmp_path / "e" / files[0], tmp_path / "e" / files[-1]
    lost.unlink()
    if damaged.name != "meta_info.txt":
        damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    with pytest.raises(IntegrityError, match=rf"{lost.name}: missing"):
        verify(str(tmp_path / "e"))
    assert export(rgb8, tmp_path / "e", form)["shares"]["made"] >= 1
    assert tree(tmp_path / "e") == before
    assert verify(str(tmp_path / "e"))["pairs"] == first["pairs"] == inspect(str(tmp_path / "e"))["pairs"]


@pytest.mark.parametrize("form", FORMAT_NAMES)
def test_an_interrupted_export_is_no_export_and_is_finished(
    rgb8: Corpus, tmp_path: Path, tree: Tree, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    export(rgb8, tmp_path / "whole", form)
    written = type(FORMATS[form]).write

    def killed(self: Any, task: ExportTask, pairs: CorpusPairs) -> Any:
        if task.index == 1:
            raise KeyboardInterrupt
        return written(self, task, pairs)

    with monkeypatch.context() as patched:
        patched.setattr(type(FORMATS[form]), "write", killed)
        with pytest.raises(KeyboardInterrupt):
            export(rgb8, tmp_path / "e", form)
    with pytest.raises(UserError, match="this export is unfinished"):
        kind_of(str(tmp_path / "e"))
    assert export(rgb8, tmp_path / "e", form)["shares"]["kept"] == 1
    assert tree(tmp_path / "e") == tree(tmp_path / "whole")


def test_rejected_pairs_come_when_they_are_asked_for(rgb8: Corpus, tmp_path: Path) -> None:
    result = export(rgb8, tmp_path / "e", "webdataset", accepted_only=False, pairs_per_file=5)
    assert (result["pairs"], result["skipped"], result["shares"]["made"]) == (8, 0, 2)
    rows = {}
    for path in sorted((tmp_path / "e").glob("*.tar")):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
            assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in members} == {(0, 0, 0, "", "")}
            rows |= {int(m.name[:8]): json.load(tar.extractfile(m)) for m in members if m.name.endswith(".json")}  # type: ignore[arg-type]
    assert list(rows) == list(range(8))
    assert {n for n, row in rows.items() if row["accepted"]} == set(accepted(rgb8))
    assert all("std ratio" in row["reason"] for row in rows.values() if not row["accepted"])


def test_progress_counts_images(rgb8: Corpus, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    parameters = ExportParameters(corpus=rgb8.url, output=str(tmp_path / "e"), format="folders")
    export_corpus(parameters, lambda done, total: seen.append((done, total)))
    assert seen == [(0, 16), (6, 16), (12, 16), (16, 16)]


def test_another_export_at_the_same_place_is_refused(rgb8: Corpus, tmp_path: Path, tree: Tree) -> None:
    export(rgb8, tmp_path / "e", "webdataset")
    before = tree(tmp_path / "e")
    for changes, words in (
        ({"form": "parquet"}, r"settings\.format \('webdataset' exists, 'parquet' requested\)"),
        ({"form": "webdataset", "codec": "tiff"}, r"settings\.codec \('png' exists, 'tiff' requested\)"),
        ({"form": "webdataset", "accepted_only": False}, r"settings\.accepted_only \(True exists, False requested\)"),
    ):
        with pytest.raises(UserError, match=f"holds a different export; different settings: {words}"):
            export(rgb8, tmp_path / "e", **changes)
    plan = json.loads((tmp_path / "e" / ".export" / "plan.json").read_text())
    other = plan | {"corpus": "0" * 64, "key": "of another corpus"}
    (tmp_path / "e" / ".export" / "plan.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"different settings: corpus \('0+\.* exists, .* requested\)"):
        export(rgb8, tmp_path / "e", "webdataset")
    (tmp_path / "e" / ".export" / "plan.json").write_bytes(before[".export/plan.json"])
    assert tree(tmp_path / "e") == before
    with pytest.raises(UserError, match=r"corpus: is not empty \(it holds .*choose an empty output"):
        export(rgb8, rgb8.url, "webdataset")


@pytest.mark.parametrize(
    ("form", "changes", "words"),
    [
        ("webdataset", {"layout": "nafnet"}, "--layout nafnet: not for --format webdataset; it has no folder layouts"),
        ("lmdb", {"layout": "restormer"}, "not for --format lmdb; it knows basicsr, nafnet"),
        ("lmdb", {"codec": "tiff"}, "--codec tiff: --format lmdb holds png; take --format folders"),
        ("lmdb", {"pairs_per_file": 4}, "--pairs-per-file: LMDB has one file a side"),
        ("lmdb", {"output": "s3://bucket/e"}, "s3://bucket/e: an LMDB is a memory map and cannot lie on object"),
    ],
)
def test_what_a_format_cannot_hold_is_refused_before_anything_is_written(
    rgb8: Corpus, tmp_path: Path, form: str, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(UserError, match=words):
        export(rgb8, **{"output": tmp_path / "e", "form": form} | changes)
    assert not (tmp_path / "e").exists()


def test_lmdb_without_the_library_names_the_extra(
    rgb8: Corpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lmdb", None)
    with pytest.raises(UserError, match=r"pip install 'pngnoise\[export\]'"):
        export(rgb8, tmp_path / "e", "lmdb")


def test_a_corpus_without_clean_images(rgb8: Corpus, tmp_path: Path) -> None:
    pairs = CorpusPairs(rgb8.url)
    pairs._corpus.layout = replace(pairs._corpus.layout, arrays=("noisy",))
    pairs.arrays = ("noisy",)
    for form in ("folders", "lmdb"):
        with pytest.raises(UserError, match="contains only noisy images, no clean"):
            FORMATS[form].refuse(str(tmp_path / "e"), Settings(form, "basicsr", "png", True, None), pairs)
    settings = Settings("webdataset", None, "png", True, None)
    share = next(iter(FORMATS["webdataset"].shares(settings, pairs)))
    assert share == Share(0, 3, ("noisy",))
    task = ExportTask(pairs.url, pairs.digest, str(tmp_path / "e"), settings, 0, share)
    FORMATS["webdataset"].write(task, pairs)
    with tarfile.open(tmp_path / "e" / "corpus-000000.tar") as tar:
        assert {name.split(".", 1)[1] for name in tar.getnames()} == {"noisy.png", "json"}


def test_a_damaged_manifest_is_not_read(rgb8: Corpus, tmp_path: Path) -> None:
    location = Path(rgb8.url, "manifest/00000.parquet")
    content = location.read_bytes()
    try:
        location.write_bytes(content + b" ")
        with pytest.raises(IntegrityError, match=r"00000\.parquet: sha256 differs"):
            export(rgb8, tmp_path / "e", "webdataset")
    finally:
        location.write_bytes(content)


@pytest.mark.parametrize("codec", ["png", "tiff"])
@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_are_lossless(codec: str, dtype: str, channels: int) -> None:
    limits = np.iinfo(dtype)
    pixels = np.random.default_rng(0).integers(0, limits.max, (channels, 17, 23), dtype, endpoint=True)
    pixels[:, :4] = limits.max
    content = encode_image(pixels, codec)
    assert content == encode_image(pixels[:, :, ::-1].copy()[:, :, ::-1], codec)  # whatever the memory looks like
    if codec == "png":
        found = decoded(content)
    else:
        found = np.moveaxis(np.atleast_3d(tifffile.imread(io.BytesIO(content))), -1, 0)
    np.testing.assert_array_equal(found, pixels)


def test_floats_need_tiff() -> None:
    with pytest.raises(UserError, match="holds float32 images and PNG has no floats; export folders with --codec tiff"):
        refuse_codec("png", "float32", 3, "corpora/a")
    with pytest.raises(UserError, match="holds 4 channels and PNG takes grey or RGB here; use --codec tiff"):
        refuse_codec("png", "uint8", 4, "corpora/a")
    refuse_codec("tiff", "float32", 3, "corpora/a")
    pixels = np.random.default_rng(0).normal(size=(3, 8, 9)).astype(np.float32)
    found = tifffile.imread(io.BytesIO(encode_image(pixels, "tiff")))
    np.testing.assert_array_equal(np.moveaxis(found, -1, 0), pixels)


def test_any_image_fits_the_map_of_a_database(rgb8: Corpus) -> None:
    pairs = CorpusPairs(rgb8.url)
    noise = np.random.default_rng(0).integers(0, 256, pairs.shape, "uint8", endpoint=False)
    page = 4096
    assert len(pairs) * (len(encode_image(noise, "png")) // page + 1) * page < map_size(pairs) - (32 << 20)


def test_a_row_with_what_json_cannot_say() -> None:
    assert json.loads(encode_row({"b": float("nan"), "a": 2**64 - 1})) == {"a": 2**64 - 1, "b": None}


@pytest.mark.parametrize(
    ("licence", "keys"),
    [
        ("MIT (SIDD)", {"license": "mit"}),
        ("CC0; MIT (SIDD)", {"license": ["cc0-1.0", "mit"]}),
        ("MIT; my own, unpublished", {"license": "other", "license_name": "mit-my-own-unpublished"}),
    ],
)
def test_licences_in_the_words_of_the_hub(licence: str, keys: dict[str, Any]) -> None:
    assert licence_keys(licence) == keys
