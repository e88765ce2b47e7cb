"""Small files that ask for much memory or time, and inputs that fuzzing found: an error in words, at once."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile
import torch
import zarr

from pngmodel.bundle import bundle_digest, load_bundle, save_bundle
from pngmodel.errors import IntegrityError, UserError
from pngmodel.jsontext import decode_json
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import PRESETS
from pngmodel.sizes import BoundedBuild
from pngmodel.training import checkpoints
from tasks.corpus.gate import GateRules
from tasks.datasets.adapters.folders import FolderRules
from tasks.datasets.formats.archives import members, read_whole
from tasks.datasets.formats.image_file import decode
from tasks.datasets.formats.zarr_array import image_count
from tasks.models.registry import fetch_version
from tasks.runtime.configuration import load_yaml
from tasks.stores.aliases import resolve_alias
from tasks.stores.io.filesystem import exists, read_json, sha256
from tasks.stores.io.read_ranges import ByteRange, read_ranges
from tasks.stores.io.tables import decode_table
from tasks.stores.model_registry import Version
from tasks.stores.patch_store import PatchStore
from tasks.stores.shard_file import ChunkCodec, DamagedShard
from tests.faults.memory import peak, peak_from_now

_ROOM, _SECONDS = 200, 10.0
SMALL = {"channels": (4, 4, 8, 8), "width": 24, "depth": 1, "heads": 2}


@contextmanager
def cheap() -> Iterator[None]:
    """The block takes less than 200 MB and ten seconds."""
    before, started = peak_from_now(), time.process_time()
    yield
    assert peak() - before < _ROOM
    assert time.process_time() - started < _SECONDS


CRASHES = [
    "02019001d8000000d8000000e8626262" + "62" * 40,  # a length beyond the chunk
    "02019101b0010000b001000051ffff01" + "14000000" + "39010000" + "28b52ffd" + "62" * 40,
    "02019001d8000000d800000048000000" + "ffffff7f" + "62" * 52,  # a block beyond it
    "02019001d8000000010000004c000000" + "62" * 60,  # more blocks than there is room for
    "02019001d80000000000000048000000" + "62" * 56,  # blocks of nothing
    "02010101d8000000d800000048000000" + "14000000" + "62" * 52,  # another compressor
]


@pytest.mark.parametrize("packed", map(bytes.fromhex, CRASHES), ids=range(len(CRASHES)))
def test_a_blosc_chunk_that_leads_out_of_itself_is_not_followed(packed: bytes) -> None:
    """The first two ended the process: its checksum is right, as its author can make it so."""
    size = int.from_bytes(packed[4:8], "little")
    codec = ChunkCodec(1, 1, size, "uint8")
    with pytest.raises(DamagedShard):
        codec.decode(packed + google_crc32c.value(packed).to_bytes(4, "little"))


@pytest.mark.parametrize("depth", [65, 900, 100_000])
@pytest.mark.parametrize("kind", ["list", "object"])
def test_deep_json_is_told(tmp_path: Path, depth: int, kind: str) -> None:
    head, tail = ("[", "]") if kind == "list" else ('{"a":', "}")
    whole = head * depth + "1" + tail * depth
    (tmp_path / "x.json").write_text(f'{{"a": {whole}}}')
    with cheap(), pytest.raises(IntegrityError, match=r"x\.json: .*nested deeper than 64 levels"):
        read_json(str(tmp_path / "x.json"))
    assert decode_json(json.dumps({"brackets in a text": "[" * 1000}).encode())


YAML = {
    "times": "dataset: 2001-99-99",
    "tags": "dataset: !!timestamp x",
    "numbers": "dataset: !!int ''",
    "truths": "dataset: !!bool perhaps",
    "digits": f"dataset: 0x{'f' * 20000}",
    "brackets": "{" * 60000,
    "lists": "- " * 30000,
    "repeats": "noisy: '(?P<pair>(((x{9999}){9999}){9999}){9999999999})'",
    "groups": f"noisy: '{'(' * 20000}'",
}


@pytest.mark.parametrize("kind", list(YAML))
def test_yaml_that_is_no_configuration_is_told(tmp_path: Path, kind: str) -> None:
    (tmp_path / "x.yaml").write_text(YAML[kind])
    for model in (FolderRules, GateRules):
        with cheap(), pytest.raises(UserError, match=r"x\.yaml: ") as told:
            load_yaml(tmp_path / "x.yaml", model)
        assert len(str(told.value)) < 5000


@pytest.mark.parametrize("size", [0, 81, 83, (1 << 31) - 1])
def test_a_chunk_that_asks_for_memory_does_not_get_it(size: int) -> None:
    codec = ChunkCodec(1, 9, 9, "uint8")
    chunk = bytearray(codec.encode(np.arange(81, dtype=np.uint8).reshape(1, 9, 9)))
    chunk[4:8] = struct.pack("<I", size)
    chunk[-4:] = int(google_crc32c.value(bytes(chunk[:-4]))).to_bytes(4, "little")
    if size == 81:
        assert codec.decode(bytes(chunk)).shape == (1, 9, 9)
        return
    with cheap(), pytest.raises(DamagedShard, match=r"expected 81|cannot be decoded"):
        codec.decode(bytes(chunk))


LAYOUTS = {
    "image": {"height": 10**9},
    "pairs": {"pairs": 10**15},
    "shards": {"pairs": 10**12, "shard": 1},
    "slots": {"shard": 10**15},
    "repeats": {"pairs": 10**12, "repeats": 10**12},
}


@pytest.mark.parametrize("kind", list(LAYOUTS))
def test_a_store_whose_record_asks_for_memory_is_not_opened(patches: str, kind: str) -> None:
    location = Path(patches) / "store.json"
    record = json.loads(location.read_text())
    record["layout"] |= LAYOUTS[kind]
    location.write_text(json.dumps(record))
    with cheap(), pytest.raises(UserError, match=r"store\.json"):
        PatchStore.open(patches).read(0)


def test_spans_that_no_file_has_take_no_memory(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")
    for start, stop in ((0, 1 << 40), (-5, 2), (3, 2), (0, 1 << 70)):
        with cheap(), pytest.raises(IntegrityError, match="is damaged"):
            read_ranges([ByteRange(str(tmp_path / "x"), start, stop)], lambda _, content: content)


MODELS = [
    {"width": 24 * 10**8},
    {"depth": 10**9},
    {"channels": [10**9, 4, 8, 8]},
    {"decoder_blocks": [10**9, 0, 0]},
    {"prompt_map_size": 10**9},
    {"correlation_width": 10**12},
    {"latent_channels": 10**9, "latent_init": "random", "decorrelation": "none", "calibration": "none"},
]


@pytest.mark.parametrize("sizes", MODELS, ids=str)
def test_a_bundle_whose_sizes_ask_for_memory_is_not_built(tmp_path: Path, sizes: dict[str, Any]) -> None:
    save_bundle(NoiseModel(PRESETS["tiny"].model_copy(update=SMALL)), tmp_path / "b", training={}, card="")
    location = tmp_path / "b" / "config.json"
    config = json.loads(location.read_text())
    config["model"] |= sizes
    location.write_text(json.dumps(config))
    sign(tmp_path / "b")
    with (
        cheap(),
        pytest.raises(IntegrityError, match=r"does not match config\.json: the configured sizes require more than"),
    ):
        load_bundle(tmp_path / "b")


def sign(bundle: Path) -> None:
    """Put the digests of what lies there into digest.json, as whoever edits a bundle can."""
    files = {name: sha256((bundle / name).read_bytes()) for name in ("config.json", "model.safetensors")}
    (bundle / "digest.json").write_text(json.dumps({"digest": bundle_digest(files), "files": files}))


@pytest.mark.parametrize("length", [0, 1 << 20, 1 << 33, (1 << 63) - 1, (1 << 64) - 1])
def test_weights_with_a_giant_header_are_told(tmp_path: Path, length: int) -> None:
    save_bundle(NoiseModel(PRESETS["tiny"].model_copy(update=SMALL)), tmp_path / "b", training={}, card="")
    location = tmp_path / "b" / "model.safetensors"
    location.write_bytes(struct.pack("<Q", length) + location.read_bytes()[8:])
    sign(tmp_path / "b")
    with cheap(), pytest.raises(IntegrityError, match=r"model\.safetensors: does not match"):
        load_bundle(tmp_path / "b")


def test_a_bounded_build_counts_what_is_made() -> None:
    with BoundedBuild(100, 2):
        torch.zeros(5, 10), torch.empty((5, 10))
    for make in (lambda: torch.ones(11, 10), lambda: torch.eye(11), lambda: torch.arange(101), lambda: torch.rand(101)):
        with pytest.raises(ValueError, match="more than 100 values"), BoundedBuild(100, 2):
            make()
    with pytest.raises(ValueError, match="too many tensors"), BoundedBuild(100, 2):
        [torch.zeros(1) for _ in range(3)]


def test_a_text_that_stands_in_every_row_is_not_written_out() -> None:
    """930 bytes that would be 200 GB."""
    buffer = io.BytesIO()
    text = pa.DictionaryArray.from_arrays(pa.array([0] * 200_000, pa.int32()), ["x" * (1 << 20)])
    pq.write_table(pa.table({"a": text}), buffer, compression="zstd")
    with cheap(), pytest.raises(IntegrityError, match=r"t\.parquet: is damaged \(more than .* bytes of values"):
        decode_table(buffer.getvalue(), "t.parquet")


def test_a_table_of_other_columns_or_damaged_texts_is_told() -> None:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": ["text" * 9]}), buffer, compression="none", use_dictionary=False)
    content = buffer.getvalue()
    with pytest.raises(IntegrityError, match=r"t\.parquet: is damaged \(its columns are a\)"):
        decode_table(content, "t.parquet", pa.schema([("b", pa.string())]))
    with pytest.raises(IntegrityError, match=r"t\.parquet: is damaged"):
        decode_table(content.replace(b"texttext", b"\xffexttext"), "t.parquet")


def tar_header(name: str, size: bytes, kind: bytes = b"0") -> bytes:
    """A header of 512 bytes; ``size`` is its field as it lies there."""
    head = name.encode().ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + size.ljust(12, b"\0") + b"0" * 11 + b"\0"
    rest = kind + bytes(100) + b"ustar\x0000" + bytes(247)
    total = sum(head) + 8 * 32 + sum(rest)
    return head + f"{total:06o}\0 ".encode() + rest


TARS = {
    "negative size": tar_header("a.png", b"\xff" * 12),
    "size that goes back": tar_header("a.png", b"\xff" * 10 + b"\xfc\x00"),
    "long names without end": tar_header("x", b"00000000001\0", b"L") + b"a".ljust(512, b"\0"),
    "name of a terabyte": tar_header("x", b"\x80" + (1 << 40).to_bytes(11, "big"), b"L"),
    "extended header of a terabyte": tar_header("x", b"\x80" + (1 << 40).to_bytes(11, "big"), b"x"),
}


@pytest.mark.parametrize("kind", list(TARS))
def test_hostile_tars_are_told(tmp_path: Path, kind: str) -> None:
    content = TARS[kind] * (3000 if "without end" in kind else 1)
    (tmp_path / "x.tar").write_bytes(content + bytes(1024))
    with cheap(), pytest.raises(UserError, match=r"x\.tar: is not a complete tar archive"):
        members("tar", str(tmp_path / "x.tar"))


@pytest.mark.parametrize("location", ["offset", "packed"])
def test_members_beyond_their_archive_are_told(tmp_path: Path, location: str) -> None:
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as packed:
        packed.writestr("a.png", b"content")
    content = bytearray(path.read_bytes())
    directory = content.index(b"PK\x01\x02")
    start = directory + (42 if location == "offset" else 20)
    content[start : start + 4] = struct.pack("<I", 1 << 30)
    path.write_bytes(content)
    with cheap(), pytest.raises(UserError, match=r"a\.png.*beyond the end of the archive"):
        read_whole(f"zip://a.png::{path}")


def test_image_headers_that_no_file_can_hold_are_told_before_memory_is_taken() -> None:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.zeros((16, 16), np.uint8), compression="zstd")
    content = bytearray(buffer.getvalue())
    with tifffile.TiffFile(io.BytesIO(bytes(content))) as file:
        rows = file.pages[0].tags["ImageLength"].valueoffset
        strip = file.pages[0].tags["RowsPerStrip"].valueoffset
    content[rows : rows + 4], content[strip : strip + 2] = struct.pack("<I", 60_000_000), struct.pack("<H", 1)
    with cheap(), pytest.raises(UserError, match=r"a\.tif: is truncated \(its header promises 60000000 pieces"):
        decode(bytes(content), "a.tif")


@pytest.mark.parametrize("key", ["chunk_shape", "pickle"])
def test_arrays_of_giant_chunks_or_of_codecs_that_run_code_are_refused(tmp_path: Path, key: str) -> None:
    location = tmp_path / "array"
    zarr.create_array(str(location), shape=(3, 8, 8), chunks=(1, 8, 8), dtype="u1", zarr_format=3)[:] = 1
    if key == "chunk_shape":
        document = json.loads((location / "zarr.json").read_text())
        document["chunk_grid"]["configuration"]["chunk_shape"] = [10**6, 10**4, 10**4]
        (location / "zarr.json").write_text(json.dumps(document))
    else:  # version 2 of the format, which knows a codec named pickle
        (location / "zarr.json").unlink()
        facts = {"zarr_format": 2, "shape": [1, 2, 2], "chunks": [1, 2, 2], "dtype": "|O", "fill_value": None}
        (location / ".zarray").write_text(
            json.dumps(facts | {"order": "C", "compressor": None, "filters": [{"id": "pickle"}]})
        )
    with cheap(), pytest.raises(UserError):
        image_count(str(location))


@pytest.mark.parametrize("name", ["../x", "/x", "a/../../x", "a//x", "", ".", "x\0y", "zip://a::b", "..\\x"])
def test_names_in_records_do_not_leave_their_folder(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="is not a path inside the store"):
        Version(name="m", version=1, digest="0" * 64, kind="k", files={name: "0"}, note=None, added="")
    root = tmp_path / "registry" / "m"
    (root / "versions").mkdir(parents=True)
    facts = {
        "name": "m",
        "version": 1,
        "digest": "0" * 64,
        "kind": "k",
        "files": {name: "0"},
        "note": None,
        "added": "",
    }
    (root / "versions" / "000001.json").write_text(json.dumps(facts))
    with pytest.raises(IntegrityError, match=r"000001\.json"):
        fetch_version(f"{root}@1", str(tmp_path / "out"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("corpus", ["..", "a/b", "x" * 50_000 + "/", "zip:::a", 5, None])
def test_an_alias_leads_to_a_folder_beside_it_or_is_none(tmp_path: Path, corpus: object) -> None:
    (tmp_path / "latest.json").write_text(json.dumps({"kind": "alias", "corpus": corpus}))
    if corpus is None:
        assert resolve_alias(f"{tmp_path}/latest") == f"{tmp_path}/latest"
        return
    with pytest.raises(IntegrityError, match="not the name of a folder beside it") as told:
        resolve_alias(f"{tmp_path}/latest")
    assert len(str(told.value)) < 500 + len(str(tmp_path))


def test_paths_that_are_none_are_told() -> None:
    with pytest.raises(UserError, match="contains a NUL character"):
        exists("a\0b")


@pytest.mark.parametrize("state", [b"null", b"[" * 10_000, b"{}", b'{"sha256": null}', b'{"sha256": 5}'])
def test_a_checkpoint_that_is_none_is_passed_over(tmp_path: Path, state: bytes) -> None:
    checkpoints.save(tmp_path, 1, {"w": torch.ones(2)}, {"kept": True})
    checkpoints.save(tmp_path, 2, {"w": torch.zeros(2)}, {})
    (tmp_path / "step-00000002" / "state.json").write_bytes(state)
    assert checkpoints.newest(tmp_path)[0]["kept"]
    (tmp_path / "step-00000002" / "tensors.safetensors").write_bytes(b"short")
    (tmp_path / "step-00000002" / "state.json").write_text(json.dumps({"sha256": sha256(b"short")}))
    assert checkpoints.newest(tmp_path)[0]["kept"]


def test_tarfile_reads_what_is_valid(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        info = tarfile.TarInfo("a" * 150 + ".png")
        info.size = 3
        tar.addfile(info, io.BytesIO(b"abc"))
    assert [member.size for member in members("tar", str(tmp_path / "x.tar")).values()] == [3]
