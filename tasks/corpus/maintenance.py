"""Maintains corpora: resume, verify, repair, compare, clean up, materialise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.parameters import OF_A_RUN, CorpusParameters
from tasks.corpus.plan import CorpusPlan
from tasks.runtime.clusters import Cluster
from tasks.runtime.configuration import validate
from tasks.stores.aliases import resolve_alias
from tasks.stores.commits import PLAN, SIGNATURE, part_name
from tasks.stores.corpus_store import (
    COMMIT,
    GATE,
    INDEXED,
    KIND,
    SOURCES,
    Corpus,
    manifest_name,
    manifest_shards,
    shards_name,
)
from tasks.stores.io.filesystem import exists, join, read_json, remove
from tasks.stores.io.listing import list_files
from tasks.stores.layout import GROUP, array_document
from tasks.stores.writer import ShardWriter

Progress = Callable[[int, int], None]
_AT_ONCE = 8  # shards per task
_SHOWN = 20
_WEB = ("http://", "https://")


def recorded_parameters(url: str, **changes: Any) -> CorpusParameters:
    """Parameters that make the corpus at ``url`` again, with changes such as new locations of its sources.

    Raises:
        UserError: there is no corpus, or its sources are not recorded.
    """
    url = resolve_alias(url)
    location = join(url, SOURCES)
    if not exists(join(url, PLAN)) or read_json(join(url, PLAN)).get("kind") != KIND:
        raise UserError(f"{url}: no corpus was started there; check the path")
    if not exists(location):
        raise UserError(
            f"{location}: missing; it records the locations of the sources. Run the command that made the corpus again"
        )
    given = {name: value for name, value in changes.items() if value is not None}
    recorded = {name: value for name, value in read_json(location).items() if name != INDEXED}
    _refuse_foreign(location, recorded | given, set(given))
    return validate(CorpusParameters, {"output": url, "override_gate": _override(url)} | recorded | given, location)


def _refuse_foreign(location: str, recorded: dict[str, Any], given: set[str]) -> None:
    """Refuse a record that chooses more than how the corpus was made and where its sources are.

    A corpus may come from anyone, and so may the file at ``location``. Digests show whether the sources changed. The
    file must not choose where to write, who computes, or which web address is requested.

    Raises:
        IntegrityError: it records more. UserError: a source must be confirmed.
    """
    if more := sorted(OF_A_RUN & recorded.keys() - given):
        raise IntegrityError(f"{location}: key '{more[0]}' is not part of this record; it was edited, remove it")
    for name in ("model", "references", "clean"):
        address = str(recorded.get(name))
        if name not in given and any(link.lower().startswith(_WEB) for link in address.split("::")):
            raise UserError(f"{location}: its {name} are at {address}; if you trust it, pass it with --{name}")


def _override(url: str) -> str | None:
    """The recorded reason for publishing although the gate failed, so that a repair does not ask again."""
    try:
        override = read_json(join(url, GATE)).get("override")
    except (UserError, IntegrityError):
        return None
    return override if isinstance(override, str) else None


def require_parts(url: str) -> None:
    """Raise a UserError that names the missing parts of a corpus that is made with ``--parts``."""
    store = ShardWriter.planned(url)
    store.require_parts(store.layout.shards)


def require_same_recipe(recipe: str, plan: CorpusPlan) -> list[str]:
    """Check that a plan matches a corpus of recipes. Returns the differences that may change last bits.

    Raises:
        UserError: another model, other sources or settings.
    """
    asked = ShardWriter.planned(resolve_alias(recipe)).recipe
    differing = [name for name in sorted(asked | plan.recipe) if asked.get(name) != plan.recipe.get(name)]
    circumstances = [name for name in differing if name in ("code", "packages", "device")]
    if other := [name for name in differing if name not in circumstances]:
        raise UserError(
            f"{recipe}: its {', '.join(other)} differ from the recorded ones (e.g. {other[0]}: "
            f"{asked.get(other[0])!r:.60} then, {plan.recipe.get(other[0])!r:.60} now); give the sources it was made "
            "of with --model, --references and --clean"
        )
    return circumstances


@dataclass(frozen=True)
class _Look:
    url: str
    shards: tuple[int, ...]


def _problems(look: _Look) -> list[str]:
    corpus = Corpus.open(look.url)
    return [line for index in look.shards for line in corpus.verify_shard(index)]


def verify_corpus(
    url: str,
    cluster: Cluster,
    *,
    sample: int | None = None,
    seed: int = 0,
    progress: Progress = lambda done, total: None,
) -> dict[str, Any]:
    """Check all shards, or a random ``sample`` of them, and every other file.

    Raises:
        IntegrityError: something is missing or damaged; names each file.
    """
    corpus = Corpus.open(url)
    total = corpus.layout.shards if corpus.stored else 0
    shards: Sequence[int] = range(total)
    if sample is not None and sample < total:
        shards = sorted(random.Random(seed).sample(range(total), sample))
    problems = list(corpus.verify(range(0)))
    looks = [_Look(corpus.url, tuple(shards[k : k + _AT_ONCE])) for k in range(0, len(shards), _AT_ONCE)]
    looked = 0
    for look, found in cluster.run_each(_problems, looks):
        problems += found
        looked += len(look.shards)
        progress(looked, len(shards))
    if problems:
        more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
        raise IntegrityError(
            f"{corpus.url}: {len(problems)} problems in this corpus: {'; '.join(sorted(problems)[:_SHOWN])}{more}. "
            f"`pngnoise corpus repair {corpus.url}` repairs them"
        )
    facts = {"kind": KIND, "verified": True, "pairs": len(corpus), "shards": total, "digest": corpus.digest}
    return facts | ({"verified_shards": len(shards)} if len(shards) < total else {})


def compare_corpora(first: str, second: str) -> dict[str, Any]:
    """Compare two corpora: settings, shards, and samples by content."""
    a, b = Corpus.open(first), Corpus.open(second)
    one, other = ({**c.record.recipe, **c.record.layout.as_json(), "mode": c.record.mode} for c in (a, b))
    differing = {k: [one.get(k), other.get(k)] for k in sorted(one | other) if one.get(k) != other.get(k)}
    facts: dict[str, Any] = {"equal": a.digest == b.digest, "differs_in": differing}
    if a.stored and b.stored:
        facts |= _common(a, b)
    ours, theirs = (corpus.record.metrics.get("model", {}) for corpus in (a, b))
    metrics = {name: [value, theirs.get(name)] for name, value in ours.items()}
    return facts | {"metrics": {name: pair for name, pair in metrics.items() if pair[0] != pair[1]}}


def _common(a: Corpus, b: Corpus) -> dict[str, Any]:
    ours, theirs = (_shards(corpus) for corpus in (a, b))
    samples, others = (_samples(c.table) for c in (a, b))
    shared = samples.keys() & others.keys()
    return {
        "equal_shards": sum(theirs.get(key) == part for key, part in ours.items()),
        "shards": [len(ours), len(theirs)],
        "samples_of_both": len(shared),
        "equal_samples": sum(samples[key] == others[key] for key in shared),
        "pairs": [len(samples), len(others)],
    }


def _shards(corpus: Corpus) -> dict[str, str]:
    shards = pa.concat_tables(list(corpus.shards()))
    return dict(zip(*(shards.column(name).to_pylist() for name in ("key", "part_sha256")), strict=True))


def _samples(table: pa.Table) -> dict[tuple[Any, ...], str]:
    columns = [table.column(name).to_pylist() for name in ("clean", "y", "x", "repeat", "sha256")]
    return {key: digest for *key_parts, digest in zip(*columns, strict=True) for key in [tuple(key_parts)]}


def orphans(url: str) -> list[str]:
    """Files below a published corpus that do not belong to it, for example from killed writers."""
    corpus = Corpus.open(url)
    there = list_files(corpus.url)  # before the plan is read, so that later files are not orphans
    layout = corpus.layout
    known = {PLAN, GROUP, COMMIT, SOURCES, SIGNATURE, *corpus.record.files, *map(array_document, layout.arrays)}
    if corpus.stored:
        layout = ShardWriter.planned(corpus.url).layout  # repeats may be in progress
        for index in range(layout.shards):
            known |= {part_name(index), *layout.objects(index).values()}
        known |= {
            name(number) for number in range(len(manifest_shards(layout))) for name in (manifest_name, shards_name)
        }
    return [name for name in there if name not in known]


def unfinished(url: str) -> list[str]:
    """Unfinished corpora directly below ``url``."""
    found = {name.split("/")[0] for name in list_files(url) if name.count("/") == 1 and name.endswith(f"/{PLAN}")}
    started = (join(url, name) for name in sorted(found))
    return [
        location
        for location in started
        if read_json(join(location, PLAN)).get("kind") == KIND and not exists(join(location, COMMIT))
    ]


def collect_garbage(url: str, *, delete: bool) -> dict[str, Any]:
    """Find, and with ``delete`` remove, unneeded files: orphans of a corpus, or below a folder of corpora the
    orphans of all and the corpora that were never published.

    An unfinished corpus may be in progress: check before you delete.
    """
    here = resolve_alias(url)
    published = [here] if exists(join(here, COMMIT)) else list(_published(here))
    started = [] if exists(join(here, COMMIT)) else unfinished(here)
    if not published and not started:
        raise UserError(f"{url}: no corpus, and no folder of corpora; nothing was deleted")
    files = [join(location, name) for location in published for name in orphans(location)]
    if delete:
        for location in [*files, *started]:
            remove(location)
    return {"corpora": len(published), "orphans": files, "unfinished": started, "deleted": delete}


def _published(url: str) -> Iterator[str]:
    for name in list_files(url):
        if name.count("/") == 1 and name.endswith(f"/{COMMIT}"):
            yield join(url, name.split("/")[0])
