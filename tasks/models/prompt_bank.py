"""Build a prompt bank: the prompts of all references, extracted once, so that corpora need no references at hand."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import pyarrow as pa

from pngmodel.errors import UserError
from pngmodel.images import to_unit
from pngmodel.network.model import Precision
from pngmodel.statistics import whitening
from tasks.datasets.reference_pairs import Reference, ReferenceSource, open_pairs, planned_references
from tasks.models.generators import load_generator, model_digest, one_thread
from tasks.models.parameters import BankParameters
from tasks.runtime.clusters import run_each
from tasks.runtime.provenance import code_version, content_key, device_name, packages
from tasks.runtime.steps import step
from tasks.stores.io.filesystem import (
    exists,
    join,
    read_bytes,
    remove,
    sha256,
    sweep,
    write_bytes,
    write_inside,
    write_json,
)
from tasks.stores.io.tables import encode_table
from tasks.stores.layout import PLAN
from tasks.stores.plans import begin
from tasks.stores.prompt_bank import (
    COMMIT,
    FORMAT_VERSION,
    KIND,
    SCHEMA,
    TABLE,
    BankShard,
    Entry,
    PromptBankRecord,
    bank_digest,
    encode_shard,
    header,
    shard_digests,
    shard_file,
)

Name = tuple[str, str, str]
"""Model, device and digest: what names a generator in any process."""
Location = tuple[str, str]
"""URL and digest of a source of references."""


@dataclass(frozen=True)
class BankTask:
    """What a worker needs to make one shard."""

    output: str
    key: str
    generator: Name
    source: Location
    index: int
    first: int
    references: tuple[int, ...]


@dataclass(frozen=True)
class BankPlan:
    """Everything about a bank before any prompt of it exists."""

    parameters: BankParameters
    recipe: dict[str, Any]
    source: Location
    picks: tuple[int, ...]
    references: tuple[Reference, ...]

    @property
    def content(self) -> dict[str, Any]:
        """plan.json without its key."""
        sizes = {"entries": len(self.picks), "shard": self.parameters.shard}
        return {"kind": KIND, "format_version": FORMAT_VERSION, "layout": sizes, "recipe": self.recipe}

    @property
    def key(self) -> str:
        """Digest of the plan."""
        return content_key(self.content)

    @property
    def tasks(self) -> Iterator[BankTask]:
        """Work of every shard."""
        p = self.parameters
        for index, first in enumerate(range(0, len(self.picks), p.shard)):
            name = (p.model, p.device, self.recipe["model"])
            yield BankTask(p.output, self.key, name, self.source, index, first, self.picks[first : first + p.shard])


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
                f"{parameters.references}: no reference of camera {parameters.camera!r}; cameras there: {cameras}"
            )
    if parameters.limit and parameters.limit < len(picks):
        picks = [picks[int(i)] for i in np.linspace(0, len(picks) - 1, parameters.limit).round()]
    references = tuple(source.references[k] for k in picks)
    recipe = {
        "model": model_digest(parameters.model),
        "references": content_key([[r.id, r.content] for r in references]),
        "code": code_version(),
        "packages": {name: packages()[name] for name in ("torch", "numpy")},
        "device": device_name(parameters.device),
        **parameters.model_dump(include={"split", "camera", "limit"}),
    }
    return BankPlan(parameters, recipe, (parameters.references, source.digest), tuple(picks), references)


@one_thread()
def make_bank_shard(task: BankTask) -> int:
    """Extract and publish one shard; returns its index. Nothing happens when somebody else has done it."""
    location = join(task.output, shard_file(task.index))
    if _done(location, task):
        return task.index
    source = planned_references(*task.source)
    entries = [extracted(task.generator, source, k) for k in task.references]
    write_inside(task.output, shard_file(task.index), encode_shard(entries, task.first, task.key))
    return task.index


def _done(location: str, task: BankTask) -> bool:
    if not exists(location):
        return False
    digests = shard_digests(read_bytes(location), task.first, task.key)
    return digests is not None and len(digests) == len(task.references)


def build_bank(
    parameters: BankParameters, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Make the shards that are not there yet, then table and commit record. Returns place, entries, shards, digest.

    Killed at any moment and run again it makes the same bytes.

    Raises:
        UserError: the references or the model cannot be used, or the output holds something else.
    """
    plan = plan_bank(parameters)
    begin(parameters.output, PLAN, plan.content, plan.key)
    tasks = list(plan.tasks)
    todo = [task for task in tasks if not _done(join(task.output, shard_file(task.index)), task)]
    if todo:
        remove(join(parameters.output, COMMIT))  # a bank that is being mended is not published
    finished = len(plan.picks) - sum(len(task.references) for task in todo)
    progress(finished, len(plan.picks))
    for task, _ in run_each(parameters.cluster, make_bank_shard, todo):
        finished += len(task.references)
        progress(finished, len(plan.picks))
    record = _commit(plan, tasks)
    return {
        "bank": parameters.output,
        "entries": record.entries,
        "shards": {"made": len(todo), "kept": len(tasks) - len(todo)},
        "bytes": sum(shard.bytes for shard in record.shards),
        "model": record.model,
        "licence": record.licence,
        "digest": record.digest,
    }


def _commit(plan: BankPlan, tasks: list[BankTask]) -> PromptBankRecord:
    url = plan.parameters.output
    sweep(url)
    shards, digests = [], []
    for task in tasks:
        content = read_bytes(join(url, shard_file(task.index)))
        found = shard_digests(content, task.first, task.key)
        if found is None or len(found) != len(task.references):
            raise UserError(
                f"{join(url, shard_file(task.index))}: was changed during the run; run the same command again"
            )
        digests += found
        start = header(content)[1]
        shards.append(
            BankShard(
                file=shard_file(task.index),
                entries=len(found),
                bytes=len(content),
                sha256=sha256(content),
                header_bytes=start,
                header_sha256=sha256(content[:start]),
            )
        )
    table = encode_table(pa.Table.from_pylist(_rows(plan, digests), SCHEMA))
    write_bytes(join(url, TABLE), table)
    whole: dict[str, Any] = {
        "format": "pngnoise-prompt-bank",
        "format_version": FORMAT_VERSION,
        "kind": KIND,
        "entries": len(plan.picks),
        "shard": plan.parameters.shard,
        "model": plan.recipe["model"],
        "recipe": plan.recipe,
        "licence": "; ".join(sorted({reference.licence for reference in plan.references})),
        "packages": packages(),
        "shards": [shard.model_dump() for shard in shards],
        "table_sha256": sha256(table),
        "digest": bank_digest(plan.key, shards, sha256(table)),
    }
    whole["record_sha256"] = content_key(whole)
    record = PromptBankRecord.model_validate(whole)
    write_json(join(url, COMMIT), whole)
    return record


def _rows(plan: BankPlan, digests: list[str]) -> list[dict[str, Any]]:
    return [
        vars(reference) | {"entry": k, "model": plan.recipe["model"], "sha256": digest}
        for k, (reference, digest) in enumerate(zip(plan.references, digests, strict=True))
    ]


task_build_bank = step("build_prompt_bank")(build_bank)
