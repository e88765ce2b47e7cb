"""Publishes a corpus: manifest, card, report, and the commit record last. No timestamps, so reruns are identical."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pngmodel.errors import UserError
from tasks.corpus.croissant import croissant
from tasks.corpus.gate import GateRules, Verdict, run_gate
from tasks.corpus.manifest import Compacted, compact_all, require_whole
from tasks.corpus.noise_check import compare, sampled_pairs
from tasks.corpus.plan import CorpusPlan
from tasks.corpus.regenerate import pair_of
from tasks.datasets.reference_pairs import planned_references
from tasks.reports import plots
from tasks.reports.markdown import code, plain, table
from tasks.reports.results import Evaluation
from tasks.reports.tables import markdown_table, report_page
from tasks.runtime.clusters import Cluster
from tasks.runtime.run_metrics import REJECTS, count
from tasks.runtime.steps import step
from tasks.stores.aliases import write_alias
from tasks.stores.commits import object_problem
from tasks.stores.corpus_store import (
    CARD,
    CLEAN_IMAGES,
    COMMIT,
    CROISSANT,
    GATE,
    REPORT,
    corpus_digest,
    published_corpus,
    writer,
)
from tasks.stores.io.filesystem import encode_json, join, read_bytes, read_json, sha256, write_bytes, write_inside
from tasks.stores.layout import peak
from tasks.stores.records import CorpusRecord
from tasks.stores.writer import ShardWriter

HEADLINE = ("kld_naflow_rounded", "lag1_error", "cross_channel_error", "std_ratio", "akld", "sample_correlation")
_SHOWN = 8
_HOLDS = {
    "pairs": "noisy/clean pairs",
    "noisy": "noisy images; columns `clean`, `y`, `x` of the manifest identify the clean windows of the sources",
    "recipe": "recipes of noisy/clean pairs: sources and seeds, no images",
}
_READ = {
    "pairs": """    import zarr
    corpus = zarr.open_group("<this folder>", mode="r")
    clean, noisy = corpus["clean"], corpus["noisy"]  # (N, C, H, W) and (repeats, N, C, H, W)
    pair = clean[7], noisy[0, 7]""",
    "noisy": """    import zarr
    noisy = zarr.open_group("<this folder>", mode="r")["noisy"]  # (repeats, N, C, H, W)""",
    "recipe": """    pngnoise materialise <this folder> --output <a corpus with the images>""",
}


@dataclass(frozen=True)
class Published:
    """Summary of a published corpus."""

    url: str
    report: str
    pairs: int
    rejected: int
    unused_clean: int
    digest: str
    metrics: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Judged:
    """A corpus that passed the quality gate."""

    manifest: Compacted | None
    """None for a corpus of recipes."""
    verdict: Verdict
    cameras: dict[str, dict[str, float]]
    """Sampled noise compared with the references, by camera."""

    @property
    def rejected(self) -> int:
        """Number of rejected samples."""
        return sum(self.manifest.reasons.values()) if self.manifest else 0


def refuse_other_rules(plan: CorpusPlan, rules: GateRules) -> None:
    """Check a corpus that may exist before work on it.

    Raises:
        UserError: it was published in another mode or with other rules of the quality gate.
    """
    url = plan.parameters.output
    corpus = published_corpus(url)
    if corpus is None:
        return
    gate, mode = join(url, GATE), corpus.record.mode
    if mode != plan.parameters.mode:
        raise UserError(
            f"{url}: holds a corpus of mode {mode!r}, {plan.parameters.mode!r} requested; choose another output"
        )
    if next(object_problem(gate, corpus.record.files.get(GATE, "")), None) is not None:
        return  # lost or damaged: the gate runs again
    if read_json(gate).get("rules") != rules.model_dump(mode="json"):
        raise UserError(
            f"{url}: was published with other rules of the quality gate, see {gate}; choose another output, or "
            f"delete {COMMIT} there to apply the new rules to the same shards"
        )


def already_published(plan: CorpusPlan) -> Published | None:
    """The corpus, if this plan with this number of repeats is published and its records are undamaged.

    :func:`~tasks.corpus.generate.pending` has checked its shards.
    """
    url = plan.parameters.output
    corpus = published_corpus(url)
    if corpus is None or corpus.layout != plan.layout or next(corpus.verify(range(0)), None) is not None:
        return None
    return _summary(url, corpus.record)


def judge(plan: CorpusPlan, rules: GateRules, cluster: Cluster) -> Judged:
    """Compact the manifest and apply the quality gate; writes its evidence.

    Raises:
        UserError: shards are missing, or the gate fails; nothing is published.
    """
    p = plan.parameters
    manifest = None if p.mode == "recipe" else compact_all(plan, rules, cluster)
    if manifest is not None:
        require_whole(manifest, plan)
        count(REJECTS, sum(manifest.reasons.values()))
        evidence = manifest.evidence()
    else:
        evidence = {"samples": plan.layout.pairs, "reasons": {}, "rejected": [], "by_camera": {}}
    cameras = compare(plan, sampled_pairs(plan, rules.sampled_pairs))
    return Judged(manifest, run_gate(p.output, evidence, cameras, rules, p.override_gate), cameras)


def publish(plan: CorpusPlan, judged: Judged, evaluation: Evaluation) -> Published:
    """Write everything but the shards; the corpus exists once corpus.json does."""
    url, layout, mode = plan.parameters.output, plan.layout, plan.parameters.mode
    store = writer(url, layout, plan.recipe)
    contents = {
        CARD: _card(plan, judged, evaluation).encode(),
        REPORT: _report(plan, judged, evaluation).encode(),
        GATE: encode_json(judged.verdict.document),
    }
    _refuse_more_repeats(plan)
    for name, content in contents.items():
        write_inside(url, name, content)
    files = {name: sha256(content) for name, content in contents.items()}
    files[CLEAN_IMAGES] = sha256(read_bytes(join(url, CLEAN_IMAGES)))
    files |= judged.manifest.files if judged.manifest else {}
    described = encode_json(croissant(plan, files))
    write_bytes(join(url, CROISSANT), described)
    files[CROISSANT] = sha256(described)
    record: dict[str, Any] = {
        "format": "pngnoise-corpus",
        "mode": mode,
        "licence": plan.licence,
        "accepted": layout.pairs - judged.rejected,
        "rejected": dict(sorted(judged.manifest.reasons.items())) if judged.manifest else {},
        "override": plan.parameters.override_gate if judged.verdict.failures else None,
        "unused_clean": len(plan.clean_index.source.rejected),
        "metrics": evaluation.record["metrics"],
        "protocol": evaluation.record["protocol"],
        "stored_bytes": judged.manifest.stored_bytes if judged.manifest else 0,
        "files": dict(sorted(files.items())),
        "digest": corpus_digest(store.key, layout, judged.manifest.parts if judged.manifest else ()),
    }
    found = _summary(url, store.commit_images(COMMIT, CorpusRecord, record, arrays=mode != "recipe"))
    name_alias(plan, found)
    return found


def _refuse_more_repeats(plan: CorpusPlan) -> None:
    """Raise a UserError if another run is adding repeats: publishing now would remove them."""
    url = plan.parameters.output
    if ShardWriter.planned(url).layout.repeats != plan.layout.repeats:
        raise UserError(f"{url}: another run is adding samples to this corpus and will publish it")


def name_alias(plan: CorpusPlan, published: Published) -> None:
    """Write the requested alias, if any."""
    if plan.parameters.alias is not None:
        write_alias(published.url, plan.parameters.alias, published.digest)


def _summary(url: str, record: CorpusRecord) -> Published:
    return Published(
        url=url,
        report=join(url, REPORT),
        pairs=record.layout.pairs,
        rejected=record.layout.pairs - record.accepted,
        unused_clean=record.unused_clean,
        digest=record.digest,
        metrics=record.metrics,
    )


def _report(plan: CorpusPlan, judged: Judged, evaluation: Evaluation) -> str:
    layout, parameters, manifest = plan.layout, plan.parameters, judged.manifest
    facts = [
        ("pairs", str(layout.pairs)),
        ("rejected by the gate", str(judged.rejected)),
        ("clean images not used", str(len(plan.clean_index.source.rejected))),
        ("clean patches", str(layout.images)),
    ]
    if manifest is not None:
        facts += [
            ("references used", str(len(manifest.references))),
            ("mean noise std, digital numbers of 255", f"{255 * manifest.noise_std / manifest.samples:.1f}"),
        ]
    if judged.verdict.failures:
        facts.append(("QUALITY GATE FAILED, override reason", str(parameters.override_gate)))
    # Recipes are small; so is their report, without most pictures.
    shown = _SHOWN if parameters.mode != "recipe" else 1
    return report_page(
        replace(evaluation, examples=evaluation.examples[:shown]),
        title="Synthetic noise corpus",
        lead=f"{layout.pairs} noisy/clean pairs of {layout.height} × {layout.width} pixels, "
        f"{parameters.scale} sample{'s' if parameters.scale > 1 else ''} per clean patch. Metrics were computed on "
        f"{evaluation.record['pairs']} real pairs{_whose(plan)}.",
        facts=facts,
        provenance=[(f"recipe: {k}", str(v)) for k, v in plan.recipe.items()]
        + [("licence", plan.licence)]
        + [(f"gate: {camera}", _noise_text(noise)) for camera, noise in judged.cameras.items()],
        samples=[_shown(plan, pair) for pair in sampled_pairs(plan, shown)],
    )


def _shown(plan: CorpusPlan, pair: int) -> tuple[str, plots.Array, plots.Array]:
    """(name of the reference, clean, noisy) of a sample, in [0, 1]."""
    references = planned_references(*plan.job.references).references
    full = np.float32(peak(plan.layout.dtype))
    clean, noisy = (np.asarray(image / full, np.float32) for image in pair_of(plan, pair))
    return references[plan.sample(pair).reference].id, clean, noisy


def samples_picture(plan: CorpusPlan) -> str:
    """Pairs of the corpus, small enough for an artifact of its run."""
    return plots.corpus_grid([_shown(plan, pair) for pair in sampled_pairs(plan, _SHOWN)], small=True)


def _noise_text(noise: dict[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in noise.items())


def _gate_table(plan: CorpusPlan, judged: Judged) -> str:
    """Sampled noise compared with the references, whitened, by camera."""
    if not judged.cameras and plan.prompt_source == "bank":
        return f"The references are a prompt bank, so there was no real noise to compare with. See `{GATE}`.\n"
    if not judged.cameras:
        return f"The references are grey and the images are not, so nothing was compared. See `{GATE}`.\n"
    names = list(next(iter(judged.cameras.values())))
    rows = [[camera, *(f"{noise[n]:g}" for n in names)] for camera, noise in judged.cameras.items()]
    return "Generated and real noise, both whitened by the reference:\n\n" + table(["camera", *names], rows)


def _whose(plan: CorpusPlan) -> str:
    """Which real pairs the metrics were computed on, if not the references."""
    return " shipped with pngnoise (a prompt bank holds no real pairs)" if plan.prompt_source == "bank" else ""


def _card(plan: CorpusPlan, judged: Judged, evaluation: Evaluation) -> str:
    record, layout = evaluation.record, plan.layout
    recipe = "\n".join(f"- {k}: {code(v)}" for k, v in plan.recipe.items())
    failed = "".join(f"\n- {plain(failure)}" for failure in judged.verdict.failures)
    reason = plain(plan.parameters.override_gate)
    override = (
        f"\n**Published although the quality gate failed** ({reason}):{failed}\n" if judged.verdict.failures else ""
    )
    return f"""# Synthetic noise corpus

{layout.pairs} {_HOLDS[plan.parameters.mode]}; {layout.channels} x {layout.height} x {layout.width}, {layout.dtype};
{judged.rejected} rejected by the quality gate (column `accepted` of the manifest, reasons beside it and in `{GATE}`).
{len(plan.clean_index.source.rejected)} clean images were not used (reasons in `{CLEAN_IMAGES}`).
{override}
Licence of the sources: {plain(plan.licence)}

## Recipe

{recipe}

## How real the noise is

Protocol `{record["protocol"]}` on {record["pairs"]} real pairs{_whose(plan)}, one sample, seed {record["seed"]},
{record["device"]}, code {record["code"]}.

{markdown_table(record["metrics"], HEADLINE)}
All metrics and pictures: `{REPORT}`.

## Quality gate

{_gate_table(plan, judged)}
## How to read it

{_READ[plan.parameters.mode]}

A corpus without `{COMMIT}` is not finished; do not read it. `pngnoise verify <this folder>` checks every byte.
"""


task_publish = step("publish_corpus")(publish)
task_judge = step("quality_gate")(judge)
