"""Images of single samples of a plan: read if stored, generated again if not."""

from __future__ import annotations

import numpy as np

from tasks.corpus.plan import CorpusPlan
from tasks.datasets.clean_images import read_clean
from tasks.models.generators import load_generator, one_thread
from tasks.models.prompt_bank import entry_of
from tasks.stores.corpus_store import writer
from tasks.stores.layout import CLEAN, NOISY
from tasks.stores.shard_file import Pixels


def clean_of(plan: CorpusPlan, pair: int) -> Pixels:
    """The clean patch of a pair, cut from its source, (C, H, W)."""
    sample, p = plan.sample(pair), plan.parameters
    image = read_clean(p.clean, plan.recipe["clean"], plan.clean_index.source.images[sample.clean])
    patch: Pixels = np.ascontiguousarray(
        np.moveaxis(image[sample.y : sample.y + p.crop, sample.x : sample.x + p.crop], -1, 0)
    )
    return patch


def noisy_of(plan: CorpusPlan, pair: int, clean: Pixels) -> Pixels:
    """The noisy patch of a pair, generated again from its clean patch, (C, H, W) both."""
    sample, job = plan.sample(pair), plan.job
    with one_thread():
        entry = entry_of(job.generator, job.references, sample.reference)
        noisy = load_generator(*job.generator).generate(
            np.moveaxis(clean, 0, -1), prompts=entry.prompts, seed=[sample.seed]
        )
    made: Pixels = np.ascontiguousarray(np.moveaxis(np.asarray(noisy), -1, 0))
    return made


def pair_of(plan: CorpusPlan, pair: int) -> tuple[Pixels, Pixels]:
    """(clean, noisy) of a pair whose shard is done, (C, H, W) both."""
    stored = () if plan.parameters.mode == "recipe" else plan.layout.arrays
    store = writer(plan.parameters.output, plan.layout, plan.recipe)
    clean = store.image(pair, CLEAN) if CLEAN in stored else clean_of(plan, pair)
    return clean, store.image(pair, NOISY) if NOISY in stored else noisy_of(plan, pair, clean)
