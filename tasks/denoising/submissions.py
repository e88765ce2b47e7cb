"""Submissions to the SIDD and DND benchmarks: denoised images in the file formats of their servers.

OUTPUT/upload/          the files to upload
    SubmitSrgb.mat      SIDD: a cell array of 40 x 32 blocks, seconds per megapixel, a description
    SubmitSrgb.csv      SIDD on Kaggle: 1280 rows of base64
    0001.mat .. 0050.mat    DND: a cell array of 20 boxes each
OUTPUT/submission.json  denoiser, catalogue, and digests of the files; written last
"""

from __future__ import annotations

import base64
import csv
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pngmodel.errors import IntegrityError, UserError
from pngmodel.network.model import Precision
from tasks.datasets.catalogue import load_catalogue, read_catalogued
from tasks.denoising.matlab73 import matlab73
from tasks.denoising.parameters import SubmitParameters
from tasks.denoising.unpaired import denoised
from tasks.models.denoisers import CLASSICAL, denoiser_digest, load_denoiser
from tasks.models.generators import one_thread
from tasks.runtime.clusters import run_each
from tasks.runtime.provenance import device_name
from tasks.runtime.steps import step
from tasks.stores.commits import ObjectFact, PartWriter
from tasks.stores.io.filesystem import exists, file_size, join, local_path, read_json, remove, sweep, write_json
from tasks.stores.io.read_ranges import file_sha256

Benchmark = Literal["sidd", "dnd"]
SIDD_IMAGES, SIDD_BLOCKS = 40, 32
DND_IMAGES, DND_BOXES = 50, 20
COMMIT = "submission.json"
_UPLOAD, _FOLDER = "upload", ".submission/"
_MAX_EXAMPLES = 3
_DND_VERSION = "1.0"  # eval_version of DND's kit

Pixels = NDArray[Any]


@dataclass(frozen=True)
class ImageTask:
    """Task of a worker: the blocks or boxes of one image."""

    output: str
    plan: dict[str, Any]
    catalogue: str
    denoiser: tuple[str, str, str]
    number: int
    """Counts from 0 in SIDD and from 1 in DND, as in the benchmarks."""

    @property
    def benchmark(self) -> Benchmark:
        """The benchmark."""
        found: Benchmark = self.plan["benchmark"]
        return found


def expected_ids(benchmark: Benchmark) -> dict[int, list[str]]:
    """Return the ids of the blocks or boxes of every image, in the order of the submission."""
    if benchmark == "sidd":
        return {i: [f"{i:04d}-{b:04d}" for b in range(SIDD_BLOCKS)] for i in range(SIDD_IMAGES)}
    return {i: [f"{i:04d}_{b:02d}" for b in range(1, DND_BOXES + 1)] for i in range(1, DND_IMAGES + 1)}


@lru_cache(maxsize=2)
def _rows(catalogue: str, benchmark: Benchmark) -> tuple[dict[str, dict[str, Any]], str]:
    """Load the rows of the catalogue by id, and its digest.

    Raises:
        UserError: The catalogue is of another dataset, or incomplete.
    """
    table, digest = load_catalogue(catalogue)
    rows = {row["pair"]: row for row in table.to_pylist()}
    dataset, adapter = ("sidd_benchmark", "sidd-benchmark") if benchmark == "sidd" else ("dnd", "dnd")
    others = sorted({row["dataset"] for row in rows.values()} - {dataset})
    if others:
        raise UserError(f"{catalogue}: contains {', '.join(others)}; ingest the benchmark with --adapter {adapter}")
    expected = {name for names in expected_ids(benchmark).values() for name in names}
    if missing := sorted(expected - set(rows)):
        raise UserError(
            f"{catalogue}: {len(missing)} of {len(expected)} images are missing, e.g. "
            f"{', '.join(missing[:_MAX_EXAMPLES])}; submissions must be complete: check rejected.json in the catalogue "
            "and download the benchmark again"
        )
    if extra := sorted(set(rows) - expected):
        raise UserError(
            f"{catalogue}: has {len(extra)} images that are not in the benchmark, e.g. "
            f"{', '.join(extra[:_MAX_EXAMPLES])}; remove them and ingest the benchmark again"
        )
    shapes = (
        {(r["height"], r["width"], r["channels"], r["dtype"]) for r in rows.values()} if benchmark == "sidd" else set()
    )
    if len(shapes) > 1 or any(r["channels"] != 3 for r in rows.values()):
        raise UserError(
            f"{catalogue}: images differ in shape or are not RGB ({sorted(shapes)}); download the benchmark again"
        )
    return rows, digest


def submit(
    parameters: SubmitParameters, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Denoise a benchmark and write the files of a submission. If interrupted, call it again to resume.

    Returns:
        The record: files with digests, denoiser, seconds per megapixel (SIDD).

    Raises:
        UserError: The catalogue is not the complete benchmark, or the output has another submission.
    """
    p = parameters
    root = local_path(p.output)
    if root is None:
        raise UserError(f"{p.output}: submissions are written to a local folder; use a local path")
    if p.benchmark == "dnd" and p.form != "mat":
        raise UserError(f"form: is {p.form!r}, but DND accepts only MATLAB files; use form 'mat'")
    Precision.best(p.device)
    digest = denoiser_digest(p.denoiser)
    loaded = load_denoiser(p.denoiser, p.device, digest)
    _, catalogue = _rows(p.catalogue, p.benchmark)
    described = {"MethodName": p.method or loaded.name, "Authors": p.authors}
    described |= {"PaperTitle": p.paper_title, "Venue": p.venue}
    plan: dict[str, Any] = {
        "kind": "submission",
        "format_version": 2,
        "benchmark": p.benchmark,
        "form": p.form,
        "catalogue": catalogue,
        "denoiser": p.denoiser if p.denoiser in CLASSICAL else digest,
        "device": device_name(p.device),
        "description": described,
    }
    _writer(p.output, plan).begin()
    if (finished := _finished(root)) is not None:
        return finished
    sweep(p.output)
    todo = [
        ImageTask(p.output, plan, p.catalogue, (p.denoiser, p.device, digest), number)
        for number in expected_ids(p.benchmark)
    ]
    progress(0, len(todo))
    for done, _ in enumerate(run_each(p.cluster, denoise_image, todo), 1):
        progress(done, len(todo))
    facts = _assemble_sidd(root, _writer(p.output, plan), p.form, described) if p.benchmark == "sidd" else {}
    names = sorted(path.name for path in (root / _UPLOAD).iterdir())
    record = plan | {
        "format": "pngnoise-submission",
        "images": len(todo),
        "files": {name: file_sha256(str(root / _UPLOAD / name)) for name in names},
        **facts,
    }
    write_json(str(root / COMMIT), record)
    for number in expected_ids(p.benchmark) if p.benchmark == "sidd" else ():
        remove(str(root / _blocks(number)))  # the result has them all
    return record


def _writer(output: str, plan: dict[str, Any]) -> PartWriter:
    """Return the writer of a submission; each part is an image of the benchmark."""
    return PartWriter(output, plan, folder=_FOLDER)


def _finished(root: Path) -> dict[str, Any] | None:
    """Return the record of a complete submission in ``root``; None if there is none."""
    if not exists(str(root / COMMIT)):
        return None
    record = read_json(str(root / COMMIT))
    files = record.get("files", {})
    paths = {root / _UPLOAD / name: digest for name, digest in files.items()}
    whole = all(path.is_file() and file_sha256(str(path)) == digest for path, digest in paths.items())
    return record if whole and files else None


@one_thread()
def denoise_image(task: ImageTask) -> None:
    """Denoise the blocks or boxes of one image and publish them, unless they already exist.

    Uses one thread, so that pixels do not depend on the number of cores, and the time is that of one core.
    """
    rows, digest = _rows(task.catalogue, task.benchmark)
    if digest != task.plan["catalogue"]:
        raise IntegrityError(f"{task.catalogue}: has changed since this run was planned; run the same command again")
    members = [rows[name] for name in expected_ids(task.benchmark)[task.number]]
    root = Path(str(local_path(task.output)))
    writer = _writer(task.output, task.plan)
    if writer.done(task.number):
        return
    images, seconds = _denoised(task, members)
    if task.benchmark == "sidd":
        content = io.BytesIO()
        np.savez(content, blocks=np.stack(images))
        objects = writer.write_objects({_blocks(task.number): content.getvalue()})
    else:
        name = f"{_UPLOAD}/{task.number:04d}.mat"
        with matlab73(root / name) as file:
            file.cell("Idenoised", 1, len(images), images)
            file.logical("israw", False)
            file.text("eval_version", _DND_VERSION)
        location = str(root / name)
        objects = {name: ObjectFact(sha256=file_sha256(location), bytes=file_size(location))}
    writer.write_part(task.number, pa.table({"seconds": [seconds]}), objects)


def _denoised(task: ImageTask, rows: list[dict[str, Any]]) -> tuple[list[Pixels], float]:
    """Denoise the images of ``rows``; return them as (H, W, C), and the seconds that the denoiser took.

    SIDD: uint8, rounded. DND: float32 in [0, 1], not rounded.
    """
    denoiser = load_denoiser(*task.denoiser)
    found, seconds = [], 0.0
    for row, noisy in zip(rows, read_catalogued(rows, "noisy"), strict=True):
        image = np.ascontiguousarray(np.moveaxis(noisy, -1, 0))
        data_range = row["data_range"] or 1.0
        if task.benchmark == "dnd" and image.dtype.kind == "u":
            image, data_range = image.astype(np.float32), float(np.iinfo(noisy.dtype).max)
        start = time.perf_counter()
        clean = denoised(image, data_range, denoiser)
        seconds += time.perf_counter() - start
        clean = clean / np.float32(data_range) if clean.dtype.kind == "f" else clean
        found.append(np.ascontiguousarray(np.moveaxis(clean, 0, -1)))
    return found, seconds


def _blocks(number: int) -> str:
    """Path of the denoised blocks of an image of SIDD in the submission."""
    return f"{_FOLDER}blocks/{number:04d}.npz"


def _read_blocks(writer: PartWriter, number: int) -> tuple[Pixels, float]:
    """Return the denoised blocks (count, H, W, C) of an image, and the seconds that they took.

    Raises:
        IntegrityError: The blocks are missing or damaged.
    """
    if not writer.done(number):
        location = join(writer.url, _blocks(number))
        raise IntegrityError(f"{location}: is missing or damaged; run the same command again")
    seconds = writer.part(number)[1]["seconds"][0].as_py()
    with np.load(join(writer.url, _blocks(number)), allow_pickle=False) as found:
        return found["blocks"], float(seconds)


def _assemble_sidd(
    root: Path, writer: PartWriter, form: Literal["mat", "kaggle"], description: dict[str, str]
) -> dict[str, Any]:
    """Write SubmitSrgb.mat or SubmitSrgb.csv from the denoised images, one image in memory at a time."""
    seconds, pixels = 0.0, 0

    def blocks() -> Iterator[Pixels]:
        nonlocal seconds, pixels
        for number in range(SIDD_IMAGES):
            images, taken = _read_blocks(writer, number)
            seconds += taken
            pixels += images.shape[0] * images.shape[1] * images.shape[2]
            yield from images

    (root / _UPLOAD).mkdir(exist_ok=True)
    if form == "mat":
        with matlab73(root / _UPLOAD / "SubmitSrgb.mat") as file:
            file.cell("DenoisedBlocksSrgb", SIDD_IMAGES, SIDD_BLOCKS, blocks(), packed=True)
            file.number("TimeMPSrgb", seconds / (pixels / 1e6))
            file.struct("OptionalData", description)
    else:
        working = root / _UPLOAD / ".SubmitSrgb.csv.writing"
        with working.open("w", newline="") as table:
            rows = csv.writer(table, lineterminator="\n")
            rows.writerow(["ID", "BLOCK"])
            for number, block in enumerate(blocks()):
                rows.writerow([number, base64.b64encode(block.tobytes()).decode("ascii")])
        working.replace(root / _UPLOAD / "SubmitSrgb.csv")
    return {"seconds_per_megapixel": seconds / (pixels / 1e6)}


task_submit = step("submit")(submit)
