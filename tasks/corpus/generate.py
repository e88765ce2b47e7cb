"""Generates the shards of a corpus. A worker decodes the next shard and encodes the last one while the model runs."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import torch

from pngmodel.statistics import whitening
from tasks.corpus.plan import CorpusPlan, Job, Sample, ShardTask, prompt_source
from tasks.datasets.clean_images import read_clean
from tasks.datasets.reference_pairs import planned_references
from tasks.models.generators import load_generator, one_thread
from tasks.models.prompt_bank import entry_of
from tasks.runtime.clusters import Cluster, open_cluster
from tasks.runtime.pipelining import pipelined
from tasks.runtime.run_metrics import PAIRS, count, model_time
from tasks.runtime.steps import step
from tasks.stores.aliases import refuse_shadows
from tasks.stores.commits import part_name
from tasks.stores.corpus_store import CLEAN_IMAGES, COMMIT, INDEXED, SCHEMA, SOURCES, published_corpus, writer
from tasks.stores.io.filesystem import encode_json, join, remove, sha256, write_if_other
from tasks.stores.io.listing import list_files
from tasks.stores.layout import CLEAN, NOISY, peak
from tasks.stores.prompt_bank import Entry
from tasks.stores.shard_file import Pixels

Progress = Callable[[int, int], None]
_BATCH = 16  # images in one call of the generator
_READERS = 4  # images that are decoded at once
_MAX_BATCH = 16  # shards per task of a cluster, so that loading and storing overlap with the model
_CHECKS = 16  # shards checked per task
_PREFECT_TASKS = 10  # at most; more make the history of a run unreadable


@dataclass(frozen=True)
class _Loaded:
    """Inputs of a shard; no samples if the shard is done."""

    task: ShardTask
    samples: Sequence[Sample]
    cleans: Sequence[Pixels]  # (H, W, C)
    entries: Sequence[Entry]


@dataclass(frozen=True)
class _Generated:
    loaded: _Loaded
    noisies: Sequence[Pixels]  # (H, W, C)


def make_shards(tasks: Iterable[ShardTask]) -> Iterator[int]:
    """Generate and publish shards in order; yields the index of each. Shards that are done are kept."""
    with one_thread():
        yield from pipelined(tasks, _load, _generate, _store)


def make_batch(tasks: tuple[ShardTask, ...]) -> list[int]:
    """As :func:`make_shards`, in one task of a cluster."""
    return list(make_shards(tasks))


def _load(task: ShardTask) -> _Loaded:
    parameters, recipe = task.job.parameters, task.job.recipe
    if writer(parameters.output, task.job.layout, recipe).done(task.index):
        return _Loaded(task, (), (), ())  # another run made it
    samples = task.samples
    of_image: dict[int, list[int]] = {}
    for position, sample in enumerate(samples):
        of_image.setdefault(sample.clean, []).append(position)

    def cut(k: int) -> list[Pixels]:
        image = read_clean(parameters.clean, recipe["clean"], task.images[k])
        squares = [(samples[p].y, samples[p].x) for p in of_image[k]]
        return [np.ascontiguousarray(image[y : y + parameters.crop, x : x + parameters.crop]) for y, x in squares]

    cleans: list[Pixels] = [np.empty(0)] * len(samples)
    with ThreadPoolExecutor(min(_READERS, len(of_image))) as readers:
        for k, patches in zip(of_image, readers.map(cut, of_image), strict=True):
            for position, patch in zip(of_image[k], patches, strict=True):
                cleans[position] = patch
    name, source = task.job.generator, task.job.references
    return _Loaded(task, samples, cleans, [entry_of(name, source, sample.reference) for sample in samples])


def _generate(loaded: _Loaded) -> _Generated:
    generator = load_generator(*loaded.task.job.generator)
    noisies: list[Pixels] = [np.empty(0)] * len(loaded.samples)
    # Samples of one reference are adjacent, so that its preparation is reused.
    order = sorted(range(len(loaded.samples)), key=lambda position: loaded.samples[position].reference)
    for batch in (order[k : k + _BATCH] for k in range(0, len(order), _BATCH)):
        prompts = [loaded.entries[position].prompts for position in batch]
        seeds = [loaded.samples[position].seed for position in batch]
        clean = np.stack([loaded.cleans[position] for position in batch])
        with model_time():
            images = np.asarray(generator.generate(clean, prompts=prompts, seed=seeds))
        for position, noisy in zip(batch, images, strict=True):
            noisies[position] = noisy
    return _Generated(loaded, noisies)


def _store(generated: _Generated) -> int:
    task, layout = generated.loaded.task, generated.loaded.task.job.layout
    if not generated.loaded.samples:
        return task.index
    references = planned_references(*task.job.references)
    stored = layout.objects(task.index)
    chunks: dict[str, list[bytes]] = {array: [] for array in stored}
    rows = []
    inputs = zip(layout.rows(task.index), generated.loaded.samples, generated.loaded.entries, strict=True)
    for position, (number, sample, entry) in enumerate(inputs):
        pair = {
            CLEAN: np.moveaxis(generated.loaded.cleans[position], -1, 0),
            NOISY: np.moveaxis(generated.noisies[position], -1, 0),
        }
        image, reference = task.images[sample.clean], references.references[sample.reference]
        rows.append(
            {
                "sample": number,
                "clean": image.id,
                "clean_licence": image.licence,
                "y": sample.y,
                "x": sample.x,
                "repeat": sample.repeat,
                "reference": reference.id,
                "reference_camera": reference.camera,
                "reference_iso": reference.iso,
                "reference_licence": reference.licence,
                "prompt_source": prompt_source(references),
                "seed": sample.seed,
            }
            | _statistics(pair[CLEAN], pair[NOISY], entry.moments)
        )
        for array in stored:
            chunks[array].append(layout.codec.encode(pair[array]))
    store = writer(task.job.parameters.output, layout, task.job.recipe)
    store.write(task.index, chunks, pa.Table.from_pylist(rows, SCHEMA))
    count(PAIRS, len(rows))
    return task.index


def _statistics(clean: Pixels, noisy: Pixels, curves: whitening.Curves) -> dict[str, Any]:
    """Manifest columns computed from the pixels, (C, H, W) each."""
    full = peak(str(clean.dtype))
    signed = np.int32 if clean.dtype.kind == "u" else np.float32
    difference = noisy.astype(signed) - clean.astype(signed)
    x = torch.from_numpy(clean.astype(np.float32) / np.float32(full))
    return {
        "clean_mean": float(clean.mean() / full),
        "noise_mean": float(difference.mean() / full),
        "noise_std": float(difference.std() / full),
        "expected_std": _expected_std(x, curves),
        "saturated": float(((noisy <= 0) | (noisy >= full)).mean()),
        "noise_sha256": sha256(difference.tobytes()),
        "sha256": sha256(clean.tobytes() + noisy.tobytes()),
    }


def _expected_std(clean: torch.Tensor, curves: whitening.Curves) -> float:
    """Std of the reference's noise at the intensities of ``clean`` (C, H, W), from its fitted curves."""
    if len(curves["knots"]) != len(clean):  # a colour reference with a grey image, or the reverse
        return float(curves["values"][..., 1].mean())
    mean = whitening.unwhiten("moments", curves, torch.zeros_like(clean), clean)
    spread = whitening.unwhiten("moments", curves, torch.ones_like(clean), clean) - mean
    return float((spread.square().mean() + mean.var(correction=0)).sqrt())


@dataclass(frozen=True)
class _Check:
    job: Job
    indices: tuple[int, ...]


def _whole(check: _Check) -> list[bool]:
    """Whether each shard is done."""
    p = check.job.parameters
    store = writer(p.output, check.job.layout, check.job.recipe)
    with ThreadPoolExecutor(_READERS) as readers:
        return list(readers.map(lambda k: store.done(k, sizes_only=p.check == "sizes"), check.indices))


def begin(plan: CorpusPlan) -> None:
    """Create the corpus, or accept an existing one with the same plan or with fewer repeats.

    Raises:
        UserError: the output holds something else, or output and alias conflict with another corpus.
    """
    output, alias = plan.parameters.output, plan.parameters.alias
    refuse_shadows(output, alias)
    writer(output, plan.layout, plan.recipe).prepare()
    images = plan.clean_index.encoded()
    write_if_other(join(output, CLEAN_IMAGES), images)
    indexed = plan.clean_index.stamp | {"sha256": sha256(images)}
    write_if_other(join(output, SOURCES), encode_json(plan.parameters.locations() | {INDEXED: indexed}))


def pending(plan: CorpusPlan, cluster: Cluster, progress: Progress = lambda done, total: None) -> list[int]:
    """Shards of this run that are not done. If shards of a published corpus are missing, it is unpublished.

    One listing finds the existing parts; they are checked in parallel, as the parameter ``check`` requires.
    """
    output = plan.parameters.output
    if plan.parameters.mode == "recipe":
        return []
    published = published_corpus(output)  # read first: another run may publish while this one checks
    there = set(list_files(join(output, "parts")))
    candidates = [index for index in plan.mine if part_name(index).removeprefix("parts/") in there]
    checks = [_Check(plan.job, tuple(candidates[k : k + _CHECKS])) for k in range(0, len(candidates), _CHECKS)]
    whole: set[int] = set()
    checked = 0
    for check, found in cluster.run_each(_whole, checks):
        whole |= {index for index, good in zip(check.indices, found, strict=True) if good}
        checked += len(check.indices)
        progress(checked, len(candidates))
    todo = [index for index in plan.mine if index not in whole]
    if todo and published is not None and todo[0] < published.layout.shards:  # new repeats are unpublished
        remove(join(output, COMMIT))
    return todo


def making(plan: CorpusPlan, indices: Sequence[int], cluster: Cluster) -> Generator[int, None, None]:
    """Generate these shards and yield the index of each finished one. Close the generator if you stop early."""
    if cluster.inline:
        yield from make_shards(plan.tasks(indices))
        return
    batches = (tuple(plan.tasks(indices[k] for k in batch)) for batch in _batches(len(indices), cluster))
    for _, finished in cluster.run_each(make_batch, batches):
        yield from finished


class ShardStream:
    """The shards of a run in the order in which they are finished: one stream for all Prefect tasks of the run.

    After a failure it restarts with the missing shards, so that Prefect can retry the task.
    """

    def __init__(self, plan: CorpusPlan, indices: Sequence[int], cluster: Cluster) -> None:
        self._plan, self._cluster = plan, cluster
        self._missing = dict.fromkeys(indices)
        self._running: Generator[int, None, None] | None = None

    def __iter__(self) -> Iterator[int]:
        return self

    def __next__(self) -> int:
        if self._running is None:
            self._running = making(self._plan, list(self._missing), self._cluster)
        try:
            index = next(self._running)
        except BaseException:
            self._running = None
            raise
        del self._missing[index]
        return index

    def close(self) -> None:
        """Stop running work."""
        if self._running is not None:
            self._running.close()


def _batches(shards: int, cluster: Cluster) -> Iterator[range]:
    """Batches of shards. Long ones first, because the device idles at both ends of a batch; short ones last, because
    workers idle while the last batch runs.

    If a worker dies, its published shards are kept when the batch is run again.
    """
    start = 0
    while start < shards:
        step = max(1, min(_MAX_BATCH, (shards - start) // (2 * cluster.workers)))
        yield range(start, start + step)
        start += step


def make_pending(
    plan: CorpusPlan,
    indices: Sequence[int],
    cluster: Cluster,
    progress: Progress = lambda done, total: None,
    stream: ShardStream | None = None,
) -> int:
    """Make these shards; returns how many. ``progress`` counts pairs.

    Args:
        plan: of the corpus.
        indices: shards of this call.
        cluster: where they are made.
        progress: called with pairs done and in total.
        stream: a stream of more shards, shared by several calls; this call waits for as many as it has indices.

    Raises:
        UserError: storage fails; published shards are kept.
    """
    total, made = sum(len(plan.layout.rows(index)) for index in indices), 0
    progress(0, total)
    for index in islice(stream or ShardStream(plan, indices, cluster), len(indices)):
        made += len(plan.layout.rows(index))
        progress(made, total)
    return len(indices)


def groups(indices: Sequence[int]) -> Iterator[list[int]]:
    """Split shards into groups, one Prefect task each."""
    step = -(-len(indices) // _PREFECT_TASKS)
    for k in range(0, len(indices), max(1, step)):
        yield list(indices[k : k + step])


def make_corpus_shards(plan: CorpusPlan, progress: Progress = lambda done, total: None) -> dict[str, int]:
    """Create the corpus and make its missing shards; returns how many were made and kept."""
    begin(plan)
    with open_cluster(plan.parameters.cluster) as cluster:
        todo = pending(plan, cluster)
        make_pending(plan, todo, cluster, progress)
    return {"made": len(todo), "kept": len(plan.mine) - len(todo)}


task_begin = step("begin_corpus")(begin)
task_pending = step("check_shards")(pending)
task_make_pending = step("make_shards")(make_pending)
