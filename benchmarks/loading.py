"""Reading patches for training, and codecs: ratios within one run, as markdown.

.venv/bin/python -m benchmarks.loading CATALOGUE [--work runs/benchmark]

CATALOGUE: of full-size PNG pairs, e.g. the one that benchmarks/extraction.py leaves in its work folder.
"""

from __future__ import annotations

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import imagecodecs
import numcodecs.blosc
import numpy as np
import s3fs
import torch
from numcodecs.blosc import Blosc
from numcodecs.zstd import Zstd
from torch.utils.data import DataLoader, Dataset

from tasks.datasets.catalogue import load_catalogue, read_one
from tasks.datasets.extraction import extract_patches
from tasks.datasets.parameters import Geometry
from tasks.runtime.parameters import ClusterConfig
from tasks.stores.io.filesystem import read_bytes
from tasks.stores.io.read_ranges import ByteRange, read_ranges
from tasks.stores.layout import shard_object
from tasks.stores.patch_store import PatchStore
from tasks.stores.shard_file import ChunkCodec, Pixels, index_size, read_index
from tasks.stores.torch_dataset import PatchDataset, ShuffledOrder

BATCH, BATCHES, REPEATS = 16, 12, 3


def best(action: Callable[[], object]) -> float:
    """Fewest seconds of some repeats."""
    found = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        action()
        found.append(time.perf_counter() - started)
    return min(found)


def batches(count: int) -> list[list[int]]:
    order = np.random.default_rng(0).permutation(count)[: BATCH * BATCHES]
    return [order[k : k + BATCH].tolist() for k in range(0, len(order), BATCH)]


class Zeros(Dataset[dict[str, torch.Tensor]]):
    """Pairs that cost nothing to read."""

    def __init__(self, size: int) -> None:
        self.image = torch.zeros(3, size, size, dtype=torch.uint8)

    def __len__(self) -> int:
        return 60 * BATCH

    def __getitem__(self, position: int) -> dict[str, torch.Tensor]:
        return {"clean": self.image, "noisy": self.image}


def loaded(data: Dataset[dict[str, torch.Tensor]], order: ShuffledOrder | None, workers: int) -> float:
    """Seconds per pair of a DataLoader that has started."""
    loader = DataLoader(data, BATCH, sampler=order, num_workers=workers, multiprocessing_context="spawn")
    batch = iter(loader)
    for _ in range(2 * workers):
        next(batch)
    started = time.perf_counter()
    count = sum(1 for _ in batch)
    return (time.perf_counter() - started) / (count * BATCH)


def local(store: str, catalogue: str) -> None:
    """Random patches: dataset, loader with workers, and cropping from the source files."""
    data = PatchDataset(store)
    picks = batches(len(data))
    pairs = sum(map(len, picks))
    rows = {row["pair"]: row for row in load_catalogue(catalogue)[0].to_pylist()}
    table = PatchStore.open(store).table.to_pylist()
    size = PatchStore.open(store).layout.height

    def crop(pick: Sequence[int]) -> None:
        for k in pick:
            row = table[k]
            for side in ("clean", "noisy"):
                image = imagecodecs.png_decode(read_bytes(rows[row["pair"]][side]))
                np.ascontiguousarray(np.moveaxis(image[row["y"] : row["y"] + size, row["x"] : row["x"] + size], -1, 0))

    def one_by_one() -> None:
        for pick in picks:
            for k in pick:
                _ = data[k]

    started = time.perf_counter()
    crop(picks[0][:8])
    cropping = (time.perf_counter() - started) / 8
    seconds = {
        "crop from PNG": cropping,
        "dataset, one by one": best(one_by_one) / pairs,
        "dataset, batches of 16": best(lambda: [data.__getitems__(pick) for pick in picks]) / pairs,
    }
    for workers in (1, 2):
        order = ShuffledOrder(data, 0, samples=60 * BATCH)
        seconds[f"DataLoader, {workers} spawned"] = loaded(data, order, workers)
        seconds[f"DataLoader, {workers} spawned, of zeros: its own limit"] = loaded(Zeros(size), None, workers)
    print("\n## Random pairs from a local disk\n\n| | ms per pair | pairs/s | x cropping |\n|---|---|---|---|")
    for name, value in seconds.items():
        print(f"| {name} | {1e3 * value:.2f} | {1 / value:.0f} | {cropping / value:.1f} |")


@contextmanager
def server() -> Iterator[None]:
    """A moto server in a process of its own; the environment tells of it."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", port]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    secrets = {"AWS_ACCESS_KEY_ID": "fake", "AWS_SECRET_ACCESS_KEY": "fake", "AWS_DEFAULT_REGION": "us-east-1"}
    os.environ.update(secrets, AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}")
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", int(port))) == 0:
                    break
            time.sleep(0.2)
        yield
    finally:
        process.terminate()
        process.wait()


def remote(store: str) -> None:
    """The same reads over HTTP, beside bare ranged GETs of the same bytes by the same client."""
    with server():
        bucket = s3fs.S3FileSystem()
        bucket.mkdir("bench")
        bucket.put(store + "/", "bench/patches/", recursive=True)
        url = "s3://bench/patches"
        data = PatchDataset(url)
        picks = batches(len(data))
        opened = PatchStore.open(url)
        ranges = [[span for k in pick for span in chunk_spans(opened, k)] for pick in picks]
        data.__getitems__([0])
        for pick in picks:
            data.__getitems__(pick)  # the indices of all shards
        raw = best(lambda: [read_ranges(batch, _content) for batch in ranges])
        ours = best(lambda: [data.__getitems__(pick) for pick in picks])
        fresh = PatchDataset(url)
        started = time.perf_counter()
        for pick in picks:
            fresh.__getitems__(pick)
        cold = time.perf_counter() - started
        names = [f"bench/patches/{shard_object(side, k)}" for k in (0, 1) for side in ("clean", "noisy")]
        whole = best(lambda: [bucket.cat_file(name) for name in names])
        shards = PatchDataset(url, whole_shards=True)
        inside = [k for k in range(len(shards)) if shards.shards[k] < 2]

        seconds = []
        for _ in range(REPEATS):
            again = PatchDataset(url, whole_shards=True)
            started = time.perf_counter()
            for k in range(0, len(inside), BATCH):
                again.__getitems__(inside[k : k + BATCH])
            seconds.append(time.perf_counter() - started)
        mine = min(seconds)
    pairs = sum(map(len, picks))
    print("\n## Random pairs from an S3-speaking server (moto) on this machine\n")
    print("| | pairs/s | of the bare GETs |\n|---|---|---|")
    print(f"| bare ranged GETs (s3fs) | {pairs / raw:.0f} | 100 % |")
    print(f"| dataset, batches of 16 | {pairs / ours:.0f} | {100 * raw / ours:.0f} % |")
    print(f"| the same, shards not seen before | {pairs / cold:.0f} | {100 * raw / cold:.0f} % |")
    print(f"| bare GETs of whole shards | {len(inside) / whole:.0f} | 100 % |")
    print(f"| dataset, whole shards | {len(inside) / mine:.0f} | {100 * whole / mine:.0f} % |")


def _content(_: int, content: bytes) -> bytes:
    return content


def chunk_spans(store: PatchStore, pair: int) -> list[ByteRange]:
    """Where a pair's chunks lie, for reading them without the dataset."""
    index, position = store.layout.location(pair)
    found = []
    for side in ("clean", "noisy"):
        location, size = f"{store.url}/{shard_object(side, index)}", store.record.parts[index].objects[side].bytes
        start = size - index_size(store.layout.shard)
        entry = read_index(read_ranges([ByteRange(location, start, size)], _content)[0], store.layout.shard, start)[
            position
        ]
        assert entry is not None
        found.append(ByteRange(location, *entry))
    return found


def _each(function: Callable[[Any], Any], items: Sequence[Any]) -> None:
    for item in items:
        function(item)


def codecs(catalogue: str) -> None:
    """Size and speed of codecs on patches of the catalogue's first noisy and clean image."""
    row = load_catalogue(catalogue)[0].to_pylist()[0]
    patches: list[Pixels] = []
    corners = [(y, x) for y in (0, 512) for x in range(0, 4000, 256)]
    for side in ("noisy", "clean"):
        image = np.moveaxis(read_one(row, side), -1, 0)
        patches += [np.ascontiguousarray(image[:, y : y + 256, x : x + 256]) for y, x in corners]
    numcodecs.blosc.use_threads = False
    channels, height, width = patches[0].shape
    chunk = ChunkCodec(channels, height, width, str(patches[0].dtype))
    zstd, blosc = Zstd(level=1, checksum=True), Blosc("zstd", 1, Blosc.BITSHUFFLE)

    def png(image: Pixels) -> bytes:
        return bytes(imagecodecs.png_encode(np.ascontiguousarray(np.moveaxis(image, 0, -1)), level=6))

    def jpegxl(image: Pixels) -> bytes:
        channels_last = np.ascontiguousarray(np.moveaxis(image, 0, -1))
        return bytes(imagecodecs.jpegxl_encode(channels_last, lossless=True, effort=1, numthreads=1))

    table: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any]]] = {
        "blosc zstd 1, crc32c (stores)": (chunk.encode, chunk.decode),
        "zstd 1": (zstd.encode, zstd.decode),
        "blosc zstd 1, bit shuffle": (blosc.encode, blosc.decode),
        "PNG": (png, imagecodecs.png_decode),
        "JPEG XL, lossless": (jpegxl, imagecodecs.jpegxl_decode),
    }
    raw = sum(patch.nbytes for patch in patches)
    print("\n## Codecs on 256 x 256 patches\n\n| | of raw | encode MB/s | decode MB/s |\n|---|---|---|---|")
    for name, (encode, decode) in table.items():
        encoded = [encode(patch) for patch in patches]
        writing = raw / 1e6 / best(partial(_each, encode, patches))
        reading = raw / 1e6 / best(partial(_each, decode, encoded))
        print(f"| {name} | {sum(map(len, encoded)) / raw:.3f} | {writing:.0f} | {reading:.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("catalogue")
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    store = str(arguments.work / "patches-loading")
    inline = ClusterConfig(kind="inline")
    extract_patches(arguments.catalogue, store, geometry=Geometry(preset="sidd-256"), cluster=inline)
    codecs(arguments.catalogue)
    local(store, arguments.catalogue)
    remote(store)


if __name__ == "__main__":
    main()
