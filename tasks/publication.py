"""Publish a corpus: manifest, card, report, and the commit record last. No times, so that a rerun gives equal bytes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from prefect import task
from prefect.cache_policies import NO_CACHE

from pngmodel.errors import UserError
from tasks import figures
from tasks.evaluation import Evaluation
from tasks.gate import GateRules
from tasks.reporting import markdown_table, report_page
from tasks.stores.corpus import CARD, COMMIT, GATE, MANIFEST, REPORT, Corpus, writer
from tasks.stores.filesystem import exists, join, read_bytes, read_json, sha256, write_bytes
from tasks.stores.layout import ARRAYS, part_name, peak
from tasks.stores.records import CorpusRecord
from tasks.stores.tables import decode_table, encode_table
from tasks.synthesis import CorpusPlan

HEADLINE = ("kld_naflow_rounded", "lag1_error", "cross_channel_error", "std_ratio", "akld", "draw_correlation")
_SHOWN = 8


@dataclass(frozen=True)
class Published:
    """A published corpus in short."""

    url: str
    report: str
    pairs: int
    rejected: int
    unused_clean: int
    digest: str
    figures: dict[str, dict[str, float]]


def manifest_rows(plan: CorpusPlan) -> pa.Table:
    """The rows of all shards, in order."""
    url = plan.parameters.output
    parts = (read_bytes(join(url, part_name(i))) for i in range(plan.layout.shards))
    return pa.concat_tables([decode_table(p) for p in parts]).replace_schema_metadata(None)


def refuse_other_rules(url: str, rules: GateRules) -> None:
    """Call before work on a corpus that may be there already.

    Raises:
        UserError: it was published under other rules of the quality gate.
    """
    if not exists(join(url, COMMIT)):
        return
    gate = join(url, GATE)
    if exists(gate) and read_json(gate).get("rules") != rules.model_dump(mode="json"):
        raise UserError(
            f"{url}: was published under other rules of the quality gate, see {gate}; choose another output, or delete "
            f"{COMMIT} there to judge the same shards anew"
        )


def already_published(plan: CorpusPlan) -> Published | None:
    """The corpus, when this very plan was published before and is still whole."""
    url = plan.parameters.output
    if not exists(join(url, COMMIT)):
        return None
    corpus = Corpus.open(url)
    if next(corpus.verify(), None) is not None:
        return None
    return _summary(url, corpus.record)


def publish(plan: CorpusPlan, table: pa.Table, rejected: dict[int, str], evaluation: Evaluation) -> Published:
    """Write everything beside the shards; the corpus exists when corpus.json does."""
    url, layout = plan.parameters.output, plan.layout
    reasons = [rejected.get(row) for row in range(table.num_rows)]
    accepted = pa.array([reason is None for reason in reasons], pa.bool_())
    manifest = table.append_column("accepted", accepted).append_column("reason", pa.array(reasons, pa.string()))
    contents = {
        MANIFEST: encode_table(manifest),
        CARD: _card(plan, evaluation, len(rejected)).encode(),
        REPORT: _report(plan, table, evaluation, rejected).encode(),
    }
    for name, content in contents.items():
        write_bytes(join(url, name), content)
    files = {name: sha256(content) for name, content in contents.items()} | {GATE: sha256(read_bytes(join(url, GATE)))}
    record: dict[str, Any] = {
        "format": "pngnoise-corpus",
        "licence": plan.licence,
        "accepted": layout.pairs - len(rejected),
        "rejected": [{"sample": row, "reason": reason} for row, reason in sorted(rejected.items())],
        "unused_clean": list(plan.rejected),
        "figures": evaluation.record["figures"],
        "protocol": evaluation.record["protocol"],
        "files": files,
    }
    return _summary(url, writer(url, layout, plan.recipe).commit(COMMIT, CorpusRecord, record))


def _summary(url: str, record: CorpusRecord) -> Published:
    return Published(
        url=url,
        report=join(url, REPORT),
        pairs=record.layout.pairs,
        rejected=len(record.rejected),
        unused_clean=len(record.unused_clean),
        digest=record.digest,
        figures=record.figures,
    )


def _report(plan: CorpusPlan, table: pa.Table, evaluation: Evaluation, rejected: dict[int, str]) -> str:
    layout, parameters = plan.layout, plan.parameters
    rows = np.unique(np.linspace(0, layout.pairs - 1, _SHOWN).round().astype(int))
    names = table.column("reference").to_pylist()
    std = 255 * float(np.mean(table.column("noise_std").to_pylist()))
    return report_page(
        evaluation,
        title="Synthetic noise corpus",
        lead=f"{layout.pairs} noisy/clean pairs of {layout.height} × {layout.width} pixels, "
        f"{parameters.scale} draw{'s' if parameters.scale > 1 else ''} per clean patch. The figures are of "
        f"{evaluation.record['pairs']} real pairs{_whose(plan)}.",
        facts=[
            ("pairs", str(layout.pairs)),
            ("rejected by the gate", str(len(rejected))),
            ("clean images not used", str(len(plan.rejected))),
            ("clean patches", str(layout.pairs // parameters.scale)),
            ("references used", str(len(set(names)))),
            ("mean noise std, grey levels", f"{std:.1f}"),
        ],
        provenance=[(f"recipe: {k}", str(v)) for k, v in plan.recipe.items()] + [("licence", plan.licence)],
        samples=[(names[row], *_pair(plan, int(row))) for row in rows],
    )


def _whose(plan: CorpusPlan) -> str:
    """Which real pairs the figures are of, where they are not the corpus' own references."""
    return " shipped with pngnoise (a prompt bank holds no real pairs)" if plan.prompt_source == "bank" else ""


def _pair(plan: CorpusPlan, row: int) -> tuple[figures.Array, figures.Array]:
    """(clean, noisy) of a sample in [0, 1], read before the corpus is committed."""
    index, position = plan.layout.place(row)
    store = writer(plan.parameters.output, plan.layout, plan.recipe)
    full = np.float32(peak(plan.layout.dtype))
    clean, noisy = (np.asarray(store.image(index, position, name) / full, np.float32) for name in ARRAYS)
    return clean, noisy


def _card(plan: CorpusPlan, evaluation: Evaluation, rejected: int) -> str:
    record, layout = evaluation.record, plan.layout
    recipe = "\n".join(f"- {k}: `{v}`" for k, v in plan.recipe.items())
    return f"""# Synthetic noise corpus

{layout.pairs} noisy/clean pairs, {layout.channels} x {layout.height} x {layout.width}, {layout.dtype};
{rejected} rejected by the quality gate (column `accepted` of `{MANIFEST}`, reasons beside it and in `{GATE}`).
{len(plan.rejected)} clean images were not used (`unused_clean` of `{COMMIT}` says why).

Licence of the sources: {plan.licence}

## Recipe

{recipe}

## How real the noise is

Protocol `{record["protocol"]}` on {record["pairs"]} real pairs{_whose(plan)}, one draw, seed {record["seed"]},
{record["device"]}, code {record["code"]}.

{markdown_table(record["figures"], HEADLINE)}
All figures and pictures: `{REPORT}`.

## How to read it

    import zarr
    clean, noisy = (zarr.open_array("<this folder>/" + name, mode="r") for name in ("clean", "noisy"))  # (N, C, H, W)

A corpus without `{COMMIT}` is not finished: do not read it. `pngnoise verify <this folder>` checks every byte.
"""


task_publish = task(cache_policy=NO_CACHE, name="publish_corpus")(publish)
task_manifest_rows = task(cache_policy=NO_CACHE, persist_result=False, name="read_manifest_parts")(manifest_rows)
