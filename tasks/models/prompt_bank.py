"""Build a prompt bank: the prompts of all references, extracted once, so that corpora need no references at hand."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from pngmodel.errors import UserError
from pngmodel.images import to_unit
from pngmodel.network.model import Precision
from pngmodel.statistics import whitening
from tasks.datasets.reference_pairs import ReferenceSource, open_pairs, planned_references
from tasks.models.generators import load_generator, model_digest, one_thread
from tasks.models.parameters import BankParameters
from tasks.runtime.clusters import run_each
from tasks.runtime.provenance import code_version, content_key, device_name, packages
from tasks.runtime.steps import step
from tasks.stores.commits import PartWriter
from tasks.stores.io.filesystem import join, remove
from tasks.stores.prompt_bank import COMMIT, Entry, PromptBankRecord, bank_writer, write_entries

Name = tuple[str, str, str]
"""Model, device and digest: what names a generator in any process."""
Location = tuple[str, str]
"""URL and digest of a source of references."""


@dataclass(frozen=True)
class BankPlan:
    """Everything about a bank before any prompt is extracted; small enough to travel to workers."""

    parameters: BankParameters
    recipe: dict[str, Any]
    source: Location
    picks: tuple[int, ...]

    @property
    def writer(self) -> PartWriter:
        """The writer of the bank."""
        layout = {"entries": len(self.picks), "shard": self.parameters.shard}
        return bank_writer(self.parameters.output, {"layout": layout, "recipe": self.recipe})

    @property
    def parts(self) -> int:
        """Number of parts."""
        return -(-len(self.picks) // self.parameters.shard)

    @property
    def generator(self) -> Name:
        """The generator that extracts the prompts."""
        return self.parameters.model, self.parameters.device, self.recipe["model"]

    def entries(self, index: int) -> range:
        """Entries of one part."""
        size = self.parameters.shard
        return range(index * size, min((index + 1) * size, len(self.picks)))


@dataclass(frozen=True)
class BankTask:
    """One part of a bank, for a worker."""

    plan: BankPlan
    index: int


KEPT_ENTRIES = 1024
"""References whose prompts a process keeps; of more, a bank has to."""


@lru_cache(maxsize=KEPT_ENTRIES)
def entry_of(generator: Name, source: Location, k: int) -> Entry:
    """Prompts and moments of reference ``k``: out of a bank, or extracted from its pair. The cache goes by digests."""
    found = planned_references(*source)
    return found.kept(k) if found.kept else extracted(generator, found, k)


def extracted(generator: Name, source: ReferenceSource, k: int) -> Entry:
    """Read a reference pair and extract its prompts, on one thread."""
    name = source.references[k].id
    noisy, clean = (to_unit(image, name)[0][0] for image in source.read(k))
    try:
        prompts = load_generator(*generator).extract(noisy, clean)
    except UserError as error:
        raise UserError(f"{name}: {error}; use references without it") from None
    return Entry(prompts, whitening.fit("moments", noisy, clean))


def plan_bank(parameters: BankParameters) -> BankPlan:
    """Decide every entry.

    Raises:
        UserError: the references or the model cannot be used, or no reference is of that split and camera.
    """
    Precision.best(parameters.device)  # before anything is written
    source = open_pairs(parameters.references)
    picks = source.of_split(parameters.split)
    if parameters.camera is not None:
        cameras = sorted({str(source.references[k].camera) for k in picks})
        picks = [k for k in picks if source.references[k].camera == parameters.camera]
        if not picks:
            raise UserError(
                f"{parameters.references}: no reference of camera {parameters.camera!r}; available cameras: {cameras}"
            )
    if parameters.limit and parameters.limit < len(picks):
        picks = [picks[int(i)] for i in np.linspace(0, len(picks) - 1, parameters.limit).round()]
    references = [source.references[k] for k in picks]
    recipe = {
        "model": model_digest(parameters.model),
        "references": content_key([[r.id, r.content] for r in references]),
        "code": code_version(),
        "packages": {name: packages()[name] for name in ("torch", "numpy")},
        "device": device_name(parameters.device),
        **parameters.model_dump(include={"split", "camera", "limit"}),
    }
    return BankPlan(parameters, recipe, (parameters.references, source.digest), tuple(picks))


@one_thread()
def make_bank_part(task: BankTask) -> int:
    """Extract and publish one part; returns its index. Keeps a part that is done."""
    plan, writer = task.plan, task.plan.writer
    if writer.done(task.index):
        return task.index
    source, rows, entries = planned_references(*plan.source), [], []
    for entry in plan.entries(task.index):
        k = plan.picks[entry]
        rows.append(vars(source.references[k]) | {"entry": entry, "model": plan.recipe["model"]})
        entries.append(extracted(plan.generator, source, k))
    write_entries(writer, task.index, rows, entries)
    return task.index


def build_bank(
    parameters: BankParameters, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Make the missing parts of a prompt bank, then commit it. Returns location, entries, parts, size, digest.

    If interrupted, run it again: it resumes and the result is byte-identical.

    Raises:
        UserError: the references or the model cannot be used, or the output holds something else.
    """
    plan = plan_bank(parameters)
    writer = plan.writer
    writer.begin()
    todo = [BankTask(plan, index) for index in range(plan.parts) if not writer.done(index)]
    if todo:
        remove(join(parameters.output, COMMIT))  # a bank that is being repaired is not published
    finished = len(plan.picks) - sum(len(plan.entries(task.index)) for task in todo)
    progress(finished, len(plan.picks))
    for task, _ in run_each(parameters.cluster, make_bank_part, todo):
        finished += len(plan.entries(task.index))
        progress(finished, len(plan.picks))
    record = _commit(plan)
    return {
        "bank": parameters.output,
        "entries": record.entries,
        "shards": {"made": len(todo), "kept": plan.parts - len(todo)},
        "bytes": sum(fact.bytes for part in record.parts for fact in part.objects.values()),
        "model": record.model,
        "licence": record.licence,
        "digest": record.digest,
    }


def _commit(plan: BankPlan) -> PromptBankRecord:
    references = planned_references(*plan.source).references
    record = {
        "format": "pngnoise-prompt-bank",
        "entries": len(plan.picks),
        "shard": plan.parameters.shard,
        "model": plan.recipe["model"],
        "recipe": plan.recipe,
        "licence": "; ".join(sorted({references[k].licence for k in plan.picks})),
        "parts": plan.writer.list_parts(plan.parts),
    }
    return plan.writer.commit(COMMIT, PromptBankRecord, record)


task_build_bank = step("build_prompt_bank")(build_bank)
