"""Extraction of full-size images beside the bare decode of the same files: ratios within one run, as markdown.

.venv/bin/python -m benchmarks.extraction FOLDER_OF_PNG_PAIRS [--pairs 10] [--work runs/benchmark]

The pairs (5328 x 3000, as SIDD's) are tiled from NAME_noisy.png and NAME_clean.png crops in another order for every
pair, so that they decode and compress as real ones do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import resource
import shutil
import subprocess
import sys
import time
from pathlib import Path

import imagecodecs
import numpy as np
import pyarrow as pa

from tasks.datasets.catalogue import COMMIT, TABLE, load_catalogue
from tasks.datasets.extraction import PRESETS, extract_patches, finalise
from tasks.datasets.ingest import ingest
from tasks.datasets.parameters import Geometry
from tasks.runtime.parameters import ClusterConfig
from tasks.stores.io.filesystem import sha256, write_bytes, write_json
from tasks.stores.io.tables import encode_table
from tasks.stores.patch_store import PatchStore

HEIGHT, WIDTH, TILE = 3000, 5328, 256
RULES = "dataset: tiled\nlicence: as the source\nnoisy: noisy/(?P<pair>.+)\\.png\nclean: clean/(?P<pair>.+)\\.png\n"
INLINE = ClusterConfig(kind="inline")


def make_pairs(source: Path, folder: Path, count: int) -> None:
    """Tile pairs of full size; the same order of tiles on both sides."""
    crops = []
    for noisy in sorted(source.glob("*_noisy.png")):
        clean = noisy.with_name(noisy.name.replace("_noisy", "_clean"))
        pair = [imagecodecs.png_decode(path.read_bytes()) for path in (noisy, clean)]
        if min(pair[0].shape[:2]) >= TILE:
            crops.append([image[:TILE, :TILE, :3] for image in pair])
    rows, columns = -(-HEIGHT // TILE), -(-WIDTH // TILE)
    for number in range(count):
        order = np.random.default_rng(number).integers(len(crops), size=(rows, columns))
        for side, name in enumerate(("noisy", "clean")):
            path = folder / name / f"pair{number:03d}.png"
            if not path.exists():
                image = np.block([[[crops[k][side]] for k in row] for row in order])[:HEIGHT, :WIDTH]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(imagecodecs.png_encode(np.ascontiguousarray(image), level=6))
    (folder / "rules.yaml").write_text(RULES)
    for path in folder.glob("*/pair*.png"):
        if int(path.stem.removeprefix("pair")) >= count:
            path.unlink()  # of an earlier run with more pairs


def decode_seconds(files: list[Path]) -> float:
    """Seconds to read and decode all files, with nothing else."""
    started = time.perf_counter()
    for path in files:
        imagecodecs.png_decode(path.read_bytes())
    return time.perf_counter() - started


def extract(catalogue: str, output: str, preset: str, parts: str | None = None) -> None:
    """One worker's work; prints its own seconds (without imports) and peak memory."""
    started = time.perf_counter()
    extract_patches(catalogue, output, geometry=Geometry(preset=preset), parts=parts, cluster=INLINE)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(json.dumps({"seconds": time.perf_counter() - started, "peak": peak * 1024}))


def worker(*arguments: str) -> subprocess.Popen[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    command = [sys.executable, __file__, "--worker", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)


def run(catalogue: str, preset: str, workers: int) -> tuple[float, float]:
    """(seconds, peak bytes) of an extraction by so many processes, each of which makes its share."""
    output = Path(f"{catalogue}-patches-{workers}")
    shutil.rmtree(output, ignore_errors=True)
    shares = [f"{k + 1}/{workers}" for k in range(workers)]
    started = [worker(catalogue, str(output), preset, share) for share in shares]
    found = [json.loads(process.communicate()[0].splitlines()[-1]) for process in started]
    return max(f["seconds"] for f in found), max(f["peak"] for f in found)


def bare(files: list[Path], workers: int) -> float:
    """Seconds of the bare decode with so many processes at once: what the machine allows."""
    shares = [files[k::workers] for k in range(workers)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        pool.map(decode_seconds, [share[:1] for share in shares], 1)
        return max(pool.map(decode_seconds, shares, 1))


def repeated(catalogue: str, times: int) -> str:
    """A catalogue that names the same pairs so many times: long runs without hundreds of gigabytes of PNG."""
    table, _ = load_catalogue(catalogue)
    ids = table.schema.get_field_index("pair")
    tables = [table.set_column(ids, "pair", [[f"{n}/{p}" for p in table["pair"].to_pylist()]]) for n in range(times)]
    content = encode_table(pa.concat_tables(tables))
    record = json.loads((Path(catalogue) / COMMIT).read_text())
    record |= {"table_sha256": sha256(content), "digest": sha256(content), "pairs": table.num_rows * times}
    write_bytes(f"{catalogue}-long/{TABLE}", content)
    write_json(f"{catalogue}-long/{COMMIT}", record)
    return f"{catalogue}-long"


def digest(store: Path) -> str:
    whole = hashlib.sha256()
    for path in sorted(p for p in store.rglob("*") if p.is_file()):
        whole.update(str(path.relative_to(store)).encode() + path.read_bytes())
    return whole.hexdigest()[:12]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, nargs="?")
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--work", type=Path, default=Path("runs/benchmark"))
    parser.add_argument("--preset", default="sidd-256", choices=PRESETS)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--long", type=int, default=0, help="also one run of so many times the pairs, for its memory")
    parser.add_argument("--worker", nargs=4)
    arguments = parser.parse_args()
    if arguments.worker:
        extract(*arguments.worker)
        return
    work, catalogues, rows = arguments.work, {}, {}
    for name, wanted in (("images", arguments.pairs), ("few", max(1, arguments.pairs // 5))):
        make_pairs(arguments.source, work / name, wanted)
        catalogues[name] = str(work / f"catalogue-{name}")
        ingest(str(work / name), str(work / name / "rules.yaml"), catalogues[name])
        rows[name] = load_catalogue(catalogues[name])[0].to_pylist()
    count = len(rows["images"])  # what was rejected is neither decoded nor extracted
    files = [Path(row[side]) for row in rows["images"] for side in ("clean", "noisy")]
    decode: dict[int, float] = {}
    seconds: dict[int, float] = {}
    peaks: dict[int, float] = {}
    for _ in range(arguments.repeats):  # in turns, and the best of each: other work on the machine passes
        for n in (1, 2):
            decode[n] = min(decode.get(n, 1e9), bare(files, n) / count)
            total, peaks[n] = run(catalogues["images"], arguments.preset, n)
            seconds[n] = min(seconds.get(n, 1e9), total / count)
    few_peak = run(catalogues["few"], arguments.preset, 1)[1]
    print(f"{count} pairs of {WIDTH} x {HEIGHT}, preset {arguments.preset}, best of {arguments.repeats}\n")
    print("| | s per pair | ratio | peak RSS MB |\n|---|---|---|---|")
    print(f"| bare decode, 1 process | {decode[1]:.3f} | 1 | |")
    print(f"| bare decode, 2 processes | {decode[2]:.3f} | {decode[1] / decode[2]:.2f} x faster | |")
    print(f"| extraction, 1 worker | {seconds[1]:.3f} | {seconds[1] / decode[1]:.2f} x decode | {peaks[1] / 1e6:.0f} |")
    print(
        f"| extraction, 2 workers | {seconds[2]:.3f} | {seconds[1] / seconds[2]:.2f} x faster | {peaks[2] / 1e6:.0f} |"
    )
    print(f"| extraction, 1 worker, {len(rows['few'])} pairs | | | {few_peak / 1e6:.0f} |")
    print(f"| extraction on 2 cores over bare decode on 1 | | {seconds[2] / decode[1]:.2f} x decode | |")
    if arguments.long:
        _, peak = run(repeated(catalogues["images"], arguments.long), arguments.preset, 1)
        print(f"| extraction, 1 worker, {count * arguments.long} pairs | | | {peak / 1e6:.0f} |")
    stores = [work / f"catalogue-images-patches-{n}" for n in (1, 2)]
    for store in stores:
        finalise(str(store))
    statistics = PatchStore.open(str(stores[0])).record.statistics
    print(f"\nSame bytes from 1 and 2 workers: {digest(stores[0]) == digest(stores[1])}")
    print(f"Stored {statistics.stored_bytes / statistics.raw_bytes:.3f} of raw")


if __name__ == "__main__":
    main()
