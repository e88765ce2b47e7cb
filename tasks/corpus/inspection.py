"""Inspects and verifies stores of every kind: catalogue, patch store, corpus, export, prompt bank, model bundle."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

from pydantic import BaseModel

from pngmodel.bundle import bundle_config, verify_bundle
from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.exports.export import open_export, verify_export
from tasks.corpus.exports.records import ExportRecord
from tasks.corpus.maintenance import verify_corpus
from tasks.datasets.catalogue import REJECTED, CatalogueRecord, load_catalogue
from tasks.models.generators import bundle_folder
from tasks.runtime.clusters import Cluster, open_cluster
from tasks.runtime.parameters import ClusterConfig
from tasks.stores.aliases import resolve_alias
from tasks.stores.corpus_store import Corpus
from tasks.stores.io.filesystem import join, read_json
from tasks.stores.kinds import kind_of
from tasks.stores.model_registry import resolve as resolve_version
from tasks.stores.patch_store import PatchStore
from tasks.stores.prompt_bank import PromptBank, PromptBankRecord
from tasks.stores.records import CorpusRecord, PatchStoreRecord

SCHEMAS: dict[str, type[BaseModel]] = {
    "catalogue": CatalogueRecord,
    "patch-store": PatchStoreRecord,
    "corpus": CorpusRecord,
    "prompt-bank": PromptBankRecord,
    "export": ExportRecord,
}
"""Commit records by the argument of `pngnoise schema`."""


def resolved(url: str) -> str:
    """The URL of a store, given its URL, the alias of a corpus, or a registered version."""
    registered = resolve_version(url)
    return resolve_alias(url) if registered is None else registered[0]


def inspect(url: str) -> dict[str, Any]:
    """The contents of a store, from its records."""
    url = resolved(url)
    kind = kind_of(url)
    if kind == "catalogue":
        table, digest = load_catalogue(url)
        rejected = read_json(join(url, REJECTED)).get("rejected")
        if not isinstance(rejected, list):
            raise IntegrityError(f"{join(url, REJECTED)}: key 'rejected' is not a list; run `pngnoise ingest` again")
        return _counts(table.to_pylist()) | {
            "kind": kind,
            "pairs": table.num_rows,
            "rejected": rejected,
            "digest": digest,
        }
    if kind == "model bundle":
        config = bundle_config(bundle_folder(url))
        return {
            "kind": kind,
            "digest": verify_bundle(bundle_folder(url)),
            **config["model"],
            "training": config["training"],
        }
    if kind == "prompt bank":
        return _bank_facts(PromptBank(url))
    if kind == "export":
        return open_export(url).model_dump(exclude={"format_version", "parts", "files", "record_sha256"})
    if kind == "corpus":
        return _corpus_facts(Corpus.open(url))
    store = PatchStore.open(url)
    layout = {k: v for k, v in store.layout.as_json().items() if k != "filled"}
    facts: dict[str, Any] = {"kind": kind, "pairs": len(store), **layout, "digest": store.digest}
    facts |= {"shards": store.layout.shards, "licence": store.licence, "recipe": store.record.recipe}
    statistics = store.record.statistics.model_dump()
    for group in ("patches", "levels"):
        facts |= statistics.pop(group)
    return facts | statistics


def record_schema(kind: str) -> dict[str, Any]:
    """JSON schema of the commit record of a kind of store.

    Raises:
        UserError: ``kind`` is unknown.
    """
    if kind not in SCHEMAS:
        raise UserError(f"there is no schema for {kind!r}; choose one of {', '.join(SCHEMAS)}")
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | SCHEMAS[kind].model_json_schema()


def _bank_facts(bank: PromptBank) -> dict[str, Any]:
    record = bank.record
    counts = _counts(bank.rows) | {"iso": dict(sorted(Counter(str(r["iso"]) for r in bank.rows).items()))}
    facts = {name: getattr(record, name) for name in ("entries", "model", "licence", "recipe", "digest")}
    stored = sum(fact.bytes for part in record.parts for fact in part.objects.values())
    sizes = {"shards": len(record.parts), "stored_bytes": stored}
    return {"kind": record.kind} | counts | facts | sizes


def _counts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {name: dict(sorted(Counter(str(r[name]) for r in rows).items())) for name in ("dataset", "camera", "split")}


def _corpus_facts(corpus: Corpus) -> dict[str, Any]:
    record, layout = corpus.record, corpus.layout
    facts: dict[str, Any] = {"kind": "corpus", "mode": record.mode, "pairs": len(corpus), "repeats": layout.repeats}
    facts |= {"clean_patches": layout.images, "size": [layout.channels, layout.height, layout.width]}
    facts |= {"dtype": layout.dtype, "accepted": record.accepted, "rejected": record.rejected}
    facts |= {
        "override": record.override,
        "unused_clean": record.unused_clean,
        "shards": layout.shards if corpus.stored else 0,
    }
    facts |= {"stored_bytes": record.stored_bytes, "licence": record.licence, "digest": record.digest}
    facts |= {"protocol": record.protocol}
    return facts | {"recipe": record.recipe, "metrics": record.metrics, "report": join(corpus.url, "report.html")}


def verify(
    url: str,
    cluster: Cluster | None = None,
    *,
    sample: int | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Check every byte against its digest.

    Args:
        url: a store of any kind, an alias of a corpus, or a version of a registry.
        cluster: where shards of a corpus are checked; default: this process.
        sample: check only this many shards of a corpus.
        seed: of the choice of these shards.
        progress: called with the number of checked shards of a corpus and of all.

    Raises:
        IntegrityError: files are missing or damaged; names them.
        UserError: nothing is stored there, or ``sample`` is given for a store that is not a corpus.
    """
    url = resolved(url)
    kind = kind_of(url)
    if sample is not None and kind != "corpus":
        raise UserError(f"--sample {sample}: only a corpus is verified by sample, {url} is a {kind}; leave it out")
    if kind == "model bundle":
        return {"kind": kind, "verified": True, "digest": verify_bundle(bundle_folder(url))}
    if kind == "catalogue":
        table, digest = load_catalogue(url)
        return {"kind": kind, "verified": True, "pairs": table.num_rows, "digest": digest}
    if kind == "corpus":
        with nullcontext(cluster) if cluster else open_cluster(ClusterConfig()) as workers:
            return verify_corpus(url, workers, sample=sample, seed=seed, progress=progress)
    store = None if kind == "export" else PromptBank(url) if kind == "prompt bank" else PatchStore.open(url)
    problems = list(verify_export(url) if store is None else store.verify())
    if problems:
        raise IntegrityError(
            f"{url}: {len(problems)} problems in this {kind}: "
            + "; ".join(problems[:10])
            + ". To repair the store, run the command that made it again"
        )
    facts: dict[str, Any] = {"kind": kind, "verified": True}
    if store is None:
        record = open_export(url)
        return facts | {"pairs": record.pairs, "bytes": record.bytes, "digest": record.digest}
    if isinstance(store, PromptBank):
        return facts | {"entries": store.record.entries, "digest": store.record.digest}
    return facts | {"pairs": len(store), "shards": store.layout.shards, "digest": store.digest}
