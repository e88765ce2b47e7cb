"""Targets: everything that the product itself writes, as a stranger might have edited it.

Whoever edits a file of a store can put its new digest into the record, so the targets do so too.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from pngmodel.baselines.trained import load_baseline
from pngmodel.bundle import bundle_config, bundle_digest, load_bundle, verify_bundle
from pngmodel.denoisers import Denoiser
from pngmodel.errors import UserError
from pngmodel.training import checkpoints
from tasks.corpus.clean_index import CleanQuery, index_clean
from tasks.corpus.exports.export import verify_export
from tasks.corpus.inspection import inspect, verify
from tasks.corpus.maintenance import compare_corpora, orphans, recorded_parameters, unfinished
from tasks.corpus.torch_dataset import CorpusDataset
from tasks.datasets.catalogue import load_catalogue
from tasks.datasets.reference_pairs import open_references
from tasks.models.promotion import PromoteParameters, promote
from tasks.models.registry import check_files, fetch_version, list_models, show_model
from tasks.stores.aliases import resolve_alias
from tasks.stores.corpus_store import Corpus, manifest_name, shards_name
from tasks.stores.model_registry import Registered
from tasks.stores.patch_store import PatchStore
from tasks.stores.prompt_bank import PromptBank, decode_entry
from tasks.stores.shard_file import ChunkCodec, DamagedShard, index_size
from tasks.stores.writer import ShardWriter
from tests.faults.fuzz.ground import Ground
from tests.faults.fuzz.target import Target, every

Build = Callable[[Ground], Target]


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _changed(path: Path, change: Callable[[dict[str, Any]], None]) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def _store(
    tree: str,
    name: str,
    read: Callable[[str], object],
    kind: str = "json",
    refresh: Callable[[Path, bytes], None] = lambda root, content: None,
) -> Build:
    """A file of a store, written over; ``refresh`` puts its digest where that is kept."""

    def build(ground: Ground) -> Target:
        root = ground.copy(getattr(ground, tree))
        path = root / name
        seed = path.read_bytes()

        def run(content: bytes) -> None:
            path.write_bytes(content)
            refresh(root, content)
            read(str(root))

        return Target((seed,), run, kind)  # type: ignore[arg-type]

    return build


def _patches(url: str) -> None:
    def images() -> None:
        PatchStore.open(url).read(0)

    def shards() -> None:
        PatchStore.open(url, kept_shards=1).read(0)

    every(
        images,
        shards,
        lambda: PatchStore.open(url).table,
        lambda: PatchStore.open(url).verify(),
        lambda: inspect(url),
        lambda: open_references(url).read(0),
    )


def _corpus(url: str) -> None:
    def images() -> None:
        Corpus.open(url).read(0)

    every(
        images,
        lambda: Corpus.open(url).table,
        lambda: Corpus.open(url).verify(),
        lambda: inspect(url),
        lambda: CorpusDataset(url)[0],
        lambda: compare_corpora(url, url),
        lambda: orphans(url),
    )


def _catalogue(url: str) -> None:
    every(lambda: load_catalogue(url), lambda: inspect(url), lambda: open_references(url).read(0))


def _bank(url: str) -> None:
    def entry() -> None:
        PromptBank(url).read(1)

    every(entry, lambda: PromptBank(url).verify(), lambda: inspect(url), lambda: open_references(url))


def _planned(url: str) -> None:
    every(
        lambda: ShardWriter.planned(url),
        lambda: recorded_parameters(url),
        lambda: Corpus.open(url).verify(),
        lambda: unfinished(str(Path(url).parent)),
    )


def _in_files(name: str) -> Callable[[Path, bytes], None]:
    def refresh(root: Path, content: bytes) -> None:
        _changed(root / "corpus.json", lambda record: record["files"].update({name: sha(content)}))

    return refresh


def _in_store(root: Path, content: bytes) -> None:
    _changed(root / "store.json", lambda record: record["parts"][0].update(sha256=sha(content)))


def _in_catalogue(root: Path, content: bytes) -> None:
    _changed(root / "catalogue.json", lambda record: record.update(table_sha256=sha(content)))


def _in_bank(root: Path, content: bytes) -> None:
    _changed(root / "bank.json", lambda record: record["parts"][0].update(sha256=sha(content)))


def _in_export(root: Path, content: bytes) -> None:
    _changed(root / "export.json", lambda record: record["parts"][0].update(sha256=sha(content)))


def _in_bundle(root: Path, content: bytes) -> None:
    files = {name: sha((root / name).read_bytes()) for name in ("config.json", "model.safetensors")}
    (root / "digest.json").write_text(json.dumps({"digest": bundle_digest(files), "files": files}))


def _shard_object(ground: Ground) -> Target:
    """A shard of noisy images, whose digests and whose index's checksum are put right."""
    import google_crc32c

    root = ground.copy(ground.patches)
    path = root / "noisy/c/0/0/0/0"
    slots = json.loads((root / "store.json").read_text())["layout"]["shard"]

    def read(content: bytes) -> None:
        entries = content[-index_size(slots) : -4]
        index = entries + int(google_crc32c.value(entries)).to_bytes(4, "little")
        whole = content[: -index_size(slots)] + index
        path.write_bytes(whole)
        facts = {"sha256": sha(whole), "bytes": max(1, len(whole))}
        _changed(root / "store.json", lambda record: record["parts"][0]["objects"]["noisy/c/0/0/0/0"].update(facts))
        _patches(str(root))

    return Target((path.read_bytes(),), read)


def _chunks(ground: Ground) -> Target:
    import google_crc32c
    import numpy as np

    codecs = [ChunkCodec(3, 8, 9, dtype) for dtype in ("uint8", "uint16", "float32")]
    seeds = tuple(codec.encode(np.arange(216).reshape(3, 8, 9).astype(codec.dtype)) for codec in codecs)

    def read(content: bytes) -> None:
        packed = content[:-4]
        content = packed + int(google_crc32c.value(packed)).to_bytes(4, "little")
        for codec in codecs:
            with contextlib.suppress(DamagedShard):  # the reader of a store reports it
                assert codec.decode(content).shape == (3, 8, 9)

    return Target(seeds, read)


def _entry(ground: Ground) -> Target:
    """A prompt bank's entry whose digest is put right."""
    bank = PromptBank(str(ground.bank))
    content = (ground.bank / "prompts/00000.bin").read_bytes()

    def read(content: bytes) -> None:
        with contextlib.suppress(ValueError):  # the reader of a bank reports it
            decode_entry(content)

    return Target((content[bank.rows[0]["start"] : bank.rows[0]["stop"]],), read)


def _survey(ground: Ground) -> Target:
    """clean.parquet of a corpus, which is read again instead of made."""
    from tasks.corpus.plan import plan_corpus
    from tasks.runtime.clusters import ClusterConfig

    root = ground.copy(ground.corpus)
    asked = _asked(plan_corpus(recorded_parameters(str(root))).parameters)
    locations, table = root / "sources.json", root / "clean.parquet"

    def read(content: bytes) -> None:
        table.write_bytes(content)
        stamp = asked.stamp() | {"sha256": sha(content)}
        _changed(locations, lambda record: record.update(indexed=stamp))
        index_clean(asked, str(root), ClusterConfig())

    return Target((table.read_bytes(),), read)


def _asked(p: Any) -> CleanQuery:
    from tasks.corpus.crops import CropSettings

    cropping = CropSettings(**p.model_dump(include=set(CropSettings.model_fields)))
    return CleanQuery(p.clean, cropping, p.seed, p.clean_split, p.clean_licence, p.min_jpeg_quality)


def _alias(ground: Ground) -> Target:
    folder = ground.new("aliases")
    location = folder / "latest"

    def read(content: bytes) -> None:
        (folder / "latest.json").write_bytes(content)
        found = resolve_alias(str(location))
        assert found == str(location) or Path(found).parent == folder, found
        with contextlib.suppress(UserError):  # there is no corpus
            Corpus.open(str(location))

    return Target((b'{"kind": "alias", "corpus": "c", "digest": "0"}',), read, "json")


def _registry(name: str) -> Build:
    def build(ground: Ground) -> Target:
        root = ground.copy(ground.registry)
        path = next(root.glob(name))
        outside = ground.new("fetched")
        record, rules = ground.folder / "record.json", ground.folder / "gate.yaml"

        def read(content: bytes) -> None:
            path.write_bytes(content)
            location, registered = f"{root}/m", Registered(str(root), "m")
            every(
                lambda: check_files(registered, registered.version(1)),
                lambda: list_models(str(root)),
                lambda: show_model(location),
                lambda: show_model(f"{location}@champion"),
                lambda: fetch_version(f"{location}@1", str(outside / "out")),
                lambda: promote(PromoteParameters(version=f"{location}@1", record=str(record), rules=str(rules))),
            )
            assert {p.name for p in outside.iterdir()} <= {"out"}, "a file was written outside of its folder"

        return Target((path.read_bytes(),), read, "json")

    return build


def _evidence(ground: Ground) -> Target:
    """The evaluation record that a promotion is asked with."""
    root, location = ground.copy(ground.registry), ground.new("evidence")
    rules = ground.folder / "gate.yaml"
    seed = (ground.folder / "record.json").read_bytes()

    def read(content: bytes) -> None:
        (location / "r.json").write_bytes(content)
        promote(PromoteParameters(version=f"{root}/m@1", record=str(location / "r.json"), rules=str(rules)))

    return Target((seed,), read, "json")


def _checkpoint(part: str) -> Build:
    def build(ground: Ground) -> Target:
        root = ground.copy(ground.checkpoint)
        folder = next(root.iterdir())
        path = folder / part

        def read(content: bytes) -> None:
            path.write_bytes(content)
            if part != "state.json":
                _changed(folder / "state.json", lambda state: state.update(sha256=sha(content)))
            checkpoints.newest(root)

        return Target((path.read_bytes(),), read, "json" if part == "state.json" else "bytes")

    return build


def _bundle(url: str) -> None:
    every(lambda: load_bundle(url), lambda: bundle_config(url), lambda: verify_bundle(url), lambda: inspect(url))


def _no_draw(load: Callable[[str], object]) -> Callable[[str], None]:
    def read(url: str) -> None:
        torch.manual_seed(0)
        load(url)

    return read


def _export(url: str) -> None:
    every(lambda: list(verify_export(url)), lambda: inspect(url), lambda: verify(url))


STORES: dict[str, Build] = {
    "store.json": _store("patches", "store.json", _patches),
    "store-part": _store("patches", "parts/00000.parquet", _patches, "bytes", _in_store),
    "store-shard": _shard_object,
    "chunk": _chunks,
    "plan.json": _store("corpus", "plan.json", _planned),
    "corpus.json": _store("corpus", "corpus.json", _corpus),
    "corpus-manifest": _store("corpus", manifest_name(0), _corpus, "bytes", _in_files(manifest_name(0))),
    "corpus-shards": _store("corpus", shards_name(0), _corpus, "bytes", _in_files(shards_name(0))),
    "corpus-gate": _store("corpus", "gate.json", recorded_parameters),
    "corpus-sources": _store("corpus", "sources.json", recorded_parameters),
    "corpus-survey": _survey,
    "alias": _alias,
    "catalogue.json": _store("catalogue", "catalogue.json", _catalogue),
    "catalogue-table": _store("catalogue", "catalogue.parquet", _catalogue, "bytes", _in_catalogue),
    "catalogue-rejected": _store("catalogue", "rejected.json", _catalogue),
    "bank.json": _store("bank", "bank.json", _bank),
    "bank-part": _store("bank", "parts/00000.parquet", _bank, "bytes", _in_bank),
    "bank-entry": _entry,
    "bundle-config": _store("bundle", "config.json", _bundle, "json", _in_bundle),
    "bundle-digest": _store("bundle", "digest.json", _bundle),
    "bundle-weights": _store("bundle", "model.safetensors", _bundle, "bytes", _in_bundle),
    "denoiser-config": _store("denoiser", "config.json", _no_draw(Denoiser.from_pretrained), "json", _in_bundle),
    "baseline-config": _store("baseline", "config.json", _no_draw(load_baseline), "json", _in_bundle),
    "registry-version": _registry("m/versions/*.json"),
    "registry-move": _registry("m/champion/*.json"),
    "registry-evidence": _evidence,
    "checkpoint-state": _checkpoint("state.json"),
    "checkpoint-tensors": _checkpoint("tensors.safetensors"),
    "export.json": _store("export", "export.json", _export),
    "export-part": _store("export", ".export/parts/00000.parquet", _export, "bytes", _in_export),
}
