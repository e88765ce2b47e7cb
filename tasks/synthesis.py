"""Synthesis: plan a corpus, make its shards. Sample i is a function of the recipe and i, never of order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import BaseModel, ConfigDict, Field

from pngmodel import whitening
from pngmodel.errors import UserError
from pngmodel.model import Precision
from pngmodel.seeds import derive_seed
from tasks.clusters import ClusterConfig, run_each
from tasks.generators import SHIPPED_MODEL, load_generator, model_digest, one_thread
from tasks.patches import corners
from tasks.promptbank import entry_of
from tasks.provenance import code_version, device_name, packages
from tasks.sources import (
    SHIPPED,
    CleanSource,
    ReferenceSource,
    open_clean,
    open_references,
    planned_clean,
    planned_references,
)
from tasks.stores.corpus import COMMIT, SCHEMA, writer
from tasks.stores.filesystem import join, remove, sha256
from tasks.stores.layout import CLEAN, NOISY, Layout, peak
from tasks.stores.shardfile import Pixels

_NO_IMAGE: Pixels = np.empty((0, 0, 0), np.uint8)


class CorpusParameters(BaseModel):
    """What to generate and where it goes."""

    model_config = ConfigDict(extra="forbid")

    output: str = Field(description="folder or URL of the corpus")
    model: str = Field(
        SHIPPED_MODEL, description="'shipped', the folder or URL of a model bundle, or a baseline's name"
    )
    references: str = Field(
        SHIPPED, description="real noise: 'shipped', or the URL of a patch store, catalogue or prompt bank"
    )
    split: str | None = Field(None, description="only references of this split of their store, e.g. train")
    clean: str = Field(SHIPPED, description="clean images: 'shipped', a folder, a patch store or a catalogue")
    scale: int = Field(1, ge=1, le=4, description="independent noisy draws per clean patch")
    seed: int = Field(0, ge=0, lt=2**63, description="another seed is another corpus")
    crop: int = Field(256, ge=16, description="side of the square clean patches, pixels")
    assign: Literal["uniform", "own"] = Field(
        "uniform", description="uniform: any reference on any patch; own: the reference with the clean image's id"
    )
    shard: int = Field(256, ge=1, description="pairs per shard; one shard is one task and one object")
    device: str = Field("cpu", description="cpu, cuda or cuda:N")
    gate: str = Field("default", description="quality gate: 'default' or a YAML file of configs/corpora/")
    cluster: ClusterConfig = Field(default_factory=lambda: ClusterConfig(kind="inline"))

    def decisive(self) -> dict[str, Any]:
        """The part that decides pixels: not where things lie, nor who computes them."""
        return self.model_dump(include={"scale", "seed", "crop", "assign", "split"})


@dataclass(frozen=True)
class Sample:
    """One pair to make."""

    clean: int
    y: int
    x: int
    draw: int
    reference: int
    seed: int


@dataclass(frozen=True)
class CorpusPlan:
    """Everything about a corpus before any pixel of it exists."""

    parameters: CorpusParameters
    layout: Layout
    recipe: dict[str, Any]
    samples: tuple[Sample, ...]
    rejected: tuple[dict[str, str], ...]
    licence: str
    prompt_source: str

    @property
    def tasks(self) -> Iterator[ShardWork]:
        """Work of every shard."""
        for index in range(self.layout.shards):
            rows = self.layout.rows(index)
            yield ShardWork(self.parameters, self.layout, self.recipe, index, self.samples[rows.start : rows.stop])


@dataclass(frozen=True)
class ShardWork:
    """What a worker needs to make one shard."""

    parameters: CorpusParameters
    layout: Layout
    recipe: dict[str, Any]
    index: int
    samples: tuple[Sample, ...]


def plan_corpus(parameters: CorpusParameters) -> CorpusPlan:
    """Decide every sample of the corpus.

    Raises:
        UserError: a source or the model cannot be used, or no clean image holds a patch.
    """
    Precision.best(parameters.device)  # before anything is written
    clean, references = open_clean(parameters.clean), open_references(parameters.references)
    model = model_digest(parameters.model)
    _refuse_other_model(parameters, references, model)
    windows, rejected = _windows(clean, parameters.crop)
    if not windows:
        reason = f"; first reason: {rejected[0]['reason']}" if rejected else ""
        raise UserError(f"{parameters.clean}: no clean image holds a patch of {parameters.crop} pixels{reason}")
    first = clean.images[windows[0][0]]
    layout = Layout(
        pairs=len(windows) * parameters.scale,
        shard=parameters.shard,
        channels=first.channels,
        height=parameters.crop,
        width=parameters.crop,
        dtype=first.dtype,
    )
    called: dict[str, list[int]] = {}
    usable = references.of_split(parameters.split)
    for k in usable:
        called.setdefault(references.references[k].id, []).append(k)
    samples = tuple(
        _sample(parameters, clean, called, usable, window, draw)
        for draw in range(parameters.scale)
        for window in windows
    )
    recipe = {
        "model": model,
        "references": references.digest,
        "clean": clean.digest,
        "code": code_version(),
        "packages": {name: packages()[name] for name in ("torch", "numpy")},
        "device": device_name(parameters.device),
        **parameters.decisive(),
    }
    licences = {clean.images[s.clean].licence for s in samples} | {
        references.references[s.reference].licence for s in samples
    }
    licence = "; ".join(sorted(licences))
    return CorpusPlan(parameters, layout, recipe, samples, tuple(rejected), licence, prompt_source(references))


def evaluated_pairs(plan: CorpusPlan) -> dict[str, Any]:
    """The real pairs that a corpus' figures are made of: its own references, or the shipped ones for a bank's."""
    if plan.prompt_source == "bank":
        return {"references": SHIPPED, "split": None}
    return {"references": plan.parameters.references, "split": plan.parameters.split}


def prompt_source(references: ReferenceSource) -> str:
    """Manifest column: ``bank`` where prompts were extracted before, ``reference`` where they are read off pairs."""
    return "bank" if references.kept else "reference"


def _refuse_other_model(parameters: CorpusParameters, references: ReferenceSource, model: str) -> None:
    if references.model not in (None, model):
        raise UserError(
            f"{parameters.references}: this prompt bank was made by the model with digest {references.model:.12}, and "
            f"{parameters.model!r} has {model:.12}; give the model that made it, or make a bank with `pngnoise prompts "
            f"--model {parameters.model}`"
        )


def _windows(clean: CleanSource, crop: int) -> tuple[list[tuple[int, int, int]], list[dict[str, str]]]:
    """(image, y, x) of every patch, in image order; images of another kind than the first are rejected."""
    windows: list[tuple[int, int, int]] = []
    rejected = list(clean.rejected)
    kind: tuple[int, str] | None = None
    for k, image in enumerate(clean.images):
        ys, xs = corners(image.height, crop, crop), corners(image.width, crop, crop)
        if not (ys and xs):
            rejected.append({"id": image.id, "reason": f"{image.height} x {image.width} pixels is smaller than {crop}"})
            continue
        kind = kind or (image.channels, image.dtype)
        if (image.channels, image.dtype) != kind:
            reason = f"{image.channels} channels of {image.dtype}; this corpus holds {kind[0]} of {kind[1]}"
            rejected.append({"id": image.id, "reason": reason})
            continue
        windows += [(k, y, x) for y in ys for x in xs]
    return windows, rejected


def _sample(
    parameters: CorpusParameters,
    clean: CleanSource,
    called: dict[str, list[int]],
    usable: list[int],
    window: tuple[int, int, int],
    draw: int,
) -> Sample:
    k, y, x = window
    identity = (parameters.seed, clean.images[k].id, y, x, draw)
    if parameters.assign == "own":
        own = clean.images[k].id.removesuffix("_clean.png")
        matches = called.get(own, [])
        if len(matches) != 1:
            raise UserError(
                f"{parameters.references}: {len(matches)} references are called {own!r}; assign 'own' needs clean "
                "images and references from one patch store or catalogue (or use 'uniform')"
            )
        reference = matches[0]
    else:
        reference = usable[derive_seed("reference", *identity) % len(usable)]
    return Sample(k, y, x, draw, reference, derive_seed("sample", *identity))


@one_thread()
def make_shard(work: ShardWork) -> int:
    """Generate and publish one shard; returns its index. Nothing happens when somebody else has done it."""
    parameters = work.parameters
    store = writer(parameters.output, work.layout, work.recipe)
    if store.done(work.index):
        return work.index
    model = (parameters.model, parameters.device, work.recipe["model"])
    source = (parameters.references, work.recipe["references"])
    generator, opened = load_generator(*model), planned_references(*source)
    clean_source = planned_clean(parameters.clean, work.recipe["clean"])
    codec, cleans, noisies, rows = work.layout.codec, [], [], []
    image, current = _NO_IMAGE, -1
    for number, sample in zip(work.layout.rows(work.index), work.samples, strict=True):
        if sample.clean != current:
            image, current = clean_source.read(sample.clean), sample.clean
        clean = np.ascontiguousarray(
            image[sample.y : sample.y + parameters.crop, sample.x : sample.x + parameters.crop]
        )
        entry = entry_of(model, source, sample.reference)
        noisy = generator.generate(clean, prompts=entry.prompts, seed=[sample.seed])
        pair = np.moveaxis(clean, -1, 0), np.moveaxis(np.asarray(noisy), -1, 0)
        info, reference = clean_source.images[sample.clean], opened.references[sample.reference]
        rows.append(
            {
                "sample": number,
                "clean": info.id,
                "clean_licence": info.licence,
                "y": sample.y,
                "x": sample.x,
                "draw": sample.draw,
                "reference": reference.id,
                "reference_camera": reference.camera,
                "reference_iso": reference.iso,
                "reference_licence": reference.licence,
                "prompt_source": prompt_source(opened),
                "seed": sample.seed,
            }
            | _statistics(*pair, entry.moments)
        )
        cleans.append(codec.encode(pair[0]))
        noisies.append(codec.encode(pair[1]))
    store.write(work.index, {CLEAN: cleans, NOISY: noisies}, pa.Table.from_pylist(rows, SCHEMA))
    return work.index


def _statistics(clean: Pixels, noisy: Pixels, curves: whitening.Curves) -> dict[str, Any]:
    """Manifest columns that come from the pixels, (C, H, W) each."""
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
    """Std that the reference's noise has at the intensities of ``clean`` (C, H, W), by its fitted curves."""
    if len(curves["knots"]) != len(clean):  # a colour reference on a grey image, or the other way round
        return float(curves["values"][..., 1].mean())
    mean = whitening.unwhiten("moments", curves, torch.zeros_like(clean), clean)
    spread = whitening.unwhiten("moments", curves, torch.ones_like(clean), clean) - mean
    return float((spread.square().mean() + mean.var(correction=0)).sqrt())


def make_shards(plan: CorpusPlan, progress: Callable[[int, int], None] = lambda done, total: None) -> dict[str, int]:
    """Make the shards that are not there yet; returns how many were made and how many were kept.

    Raises:
        UserError: the output holds another corpus, or storage fails; published shards are kept.
    """
    store = writer(plan.parameters.output, plan.layout, plan.recipe)
    store.prepare()
    todo = [work for work in plan.tasks if not store.done(work.index)]
    if todo:
        remove(join(plan.parameters.output, COMMIT))  # a corpus that is being mended is not published
    finished = sum(len(plan.layout.rows(i)) for i in range(plan.layout.shards)) - sum(len(w.samples) for w in todo)
    progress(finished, plan.layout.pairs)
    for work, _ in run_each(plan.parameters.cluster, make_shard, todo):
        finished += len(work.samples)
        progress(finished, plan.layout.pairs)
    return {"made": len(todo), "kept": plan.layout.shards - len(todo)}


task_plan_corpus = task(cache_policy=NO_CACHE, name="plan_corpus")(plan_corpus)
task_make_shards = task(cache_policy=NO_CACHE, name="make_shards")(make_shards)
