"""From parts to the manifest: file by file or at once, duplicates across files, the gate over a whole corpus."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.gate import GateRules
from tasks.corpus.generate import make_corpus_shards
from tasks.corpus.maintenance import recorded_parameters
from tasks.corpus.manifest import Compacted, compact_all
from tasks.corpus.plan import CorpusParameters, CorpusPlan, plan_corpus
from tasks.runtime.clusters import ClusterConfig, open_cluster
from tasks.stores import corpus_store as corpus_format
from tasks.stores.corpus_store import Corpus, writer

Make = Callable[..., CorpusParameters]
Made = Callable[[CorpusParameters], Any]
Tree = Callable[[Any], dict[str, bytes]]
LAX = GateRules(max_rejected_share=1.0)


def compacted(plan: CorpusPlan, rules: GateRules = LAX) -> Compacted:
    with open_cluster(ClusterConfig()) as cluster:
        return compact_all(plan, rules, cluster)


def rows(root: Path) -> list[dict[str, Any]]:
    """All rows of the files of a manifest, by pyarrow."""
    files = sorted((root / "manifest").glob("*.parquet"))
    return pa.concat_tables([pa.parquet.read_table(file) for file in files]).to_pylist()


@pytest.fixture
def plan(parameters: Make, tmp_path: Path) -> CorpusPlan:
    """A corpus of two draws whose shards are made."""
    plan = plan_corpus(parameters(tmp_path / "c", scale=2))
    make_corpus_shards(plan)
    return plan


def test_several_files_say_what_one_says(
    plan: CorpusPlan, rows_of: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = compacted(plan)
    assert sorted(one.files) == [f"{kind}/0000{k}.parquet" for kind in ("manifest", "shards") for k in (0, 1)]
    whole = rows(tmp_path / "c")
    assert [{k: v for k, v in row.items() if k not in ("accepted", "reason")} for row in whole] == rows_of(plan)
    monkeypatch.setattr(corpus_format, "ROWS_PER_MANIFEST", 16)
    many = compacted(plan)
    assert len(many.files) == 2 * 6  # 5 shards a draw, two in a file
    assert rows(tmp_path / "c") == whole
    assert "".join(many.parts) == "".join(one.parts)
    assert many.evidence() == one.evidence()
    assert (many.stored_bytes, many.samples, many.references) == (one.stored_bytes, one.samples, one.references)
    objects = [p for p in (tmp_path / "c").rglob("c/**/*") if p.is_file()]
    assert many.stored_bytes == sum(p.stat().st_size for p in objects)


def test_published_tables_are_not_written_as_other_bytes(
    parameters: Make,
    published: Callable[..., Path],
    tree: Tree,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Another pyarrow would: what is published names its files by their bytes, also when the new draws are refused."""
    published(tmp_path / "c")
    before = tree(tmp_path / "c")
    plan = plan_corpus(parameters(tmp_path / "c", scale=2))
    make_corpus_shards(plan)

    def other(table: pa.Table) -> bytes:
        sink = pa.BufferOutputStream()
        pyarrow.parquet.write_table(table, sink, compression="none")
        return bytes(sink.getvalue().to_pybytes())

    monkeypatch.setattr("tasks.corpus.manifest.encode_table", other)
    found = compacted(plan)
    assert [name for name in before if tree(tmp_path / "c")[name] != before[name]] == ["plan.json"]
    assert found.files["manifest/00000.parquet"] == Corpus(str(tmp_path / "c")).record.files["manifest/00000.parquet"]
    (tmp_path / "c" / "manifest" / "00000.parquet").write_bytes(b"damaged")
    assert compacted(plan).files["manifest/00000.parquet"] != found.files["manifest/00000.parquet"]
    assert len(rows(tmp_path / "c")) == 72


def test_quantiles_are_those_of_numpy(plan: CorpusPlan, rows_of: Callable) -> None:
    found = compacted(plan).evidence()["std_ratio"]
    ratios = [row["noise_std"] / row["expected_std"] for row in rows_of(plan)]
    for name, level in (("p01", 0.01), ("p50", 0.5), ("p99", 0.99)):
        assert found[name] == pytest.approx(np.quantile(ratios, level, method="inverted_cdf"), abs=0.0011)


def test_missing_and_damaged_parts_are_named(plan: CorpusPlan, tmp_path: Path) -> None:
    part = tmp_path / "c" / "parts" / "00007.parquet"
    content = part.read_bytes()
    part.unlink()
    with pytest.raises(UserError, match=r"1 of 10 parts are missing or damaged: parts/00007\.parquet"):
        compacted(plan)
    for damaged in (b"", content[:-9], b"x" + content):
        part.write_bytes(damaged)
        with pytest.raises(IntegrityError, match=r"parts/00007\.parquet: is damaged"):
            compacted(plan)
    part.write_bytes((tmp_path / "c" / "parts" / "00006.parquet").read_bytes())
    with pytest.raises(IntegrityError, match=r"parts/00007\.parquet: belongs to another corpus"):
        compacted(plan)


def rewrite(plan: CorpusPlan, digest: Callable[[int, str], str]) -> None:
    """Let the parts say something else of the samples' noise."""
    store = writer(plan.parameters.output, plan.layout, plan.recipe)
    for index in range(plan.layout.shards):
        _, table, facts = store.part(index)
        rows = [row | {"noise_sha256": digest(row["sample"], row["noise_sha256"])} for row in table.to_pylist()]
        changed = pa.Table.from_pylist(rows, table.schema)
        store.write_part(index, changed, facts.objects)


@pytest.mark.parametrize("rows_per_file", [1 << 20, 8])
def test_duplicates_are_found_across_files(
    plan: CorpusPlan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows_per_file: int
) -> None:
    monkeypatch.setattr(corpus_format, "ROWS_PER_MANIFEST", rows_per_file)
    rewrite(plan, lambda sample, digest: "ab" * 32 if sample in (2, 3, 29, 60) else digest)
    found = compacted(plan)
    reason = "duplicate: same noise as sample 2"
    assert found.reasons == {"duplicate": 3}
    assert found.rejected == [{"sample": k, "reason": reason} for k in (3, 29, 60)]
    refused = {row["sample"]: row["reason"] for row in rows(tmp_path / "c") if not row["accepted"]}
    assert refused == dict.fromkeys((3, 29, 60), reason)
    assert compacted(plan).files == found.files
    assert compacted(plan, GateRules(duplicates=True)).reasons == {}


def test_digests_that_begin_alike_are_no_duplicates(plan: CorpusPlan) -> None:
    rewrite(plan, lambda sample, digest: "0" * 16 + digest[16:])
    assert compacted(plan).reasons == {}


def test_a_corpus_with_the_wrong_noise_is_not_published(
    parameters: Make, made: Made, tmp_path: Path, tree: Tree
) -> None:
    """The references' noise is correlated in space; that of awgn is not, as if it had been shuffled."""
    (tmp_path / "gate.yaml").write_text("max_lag1_error: 0.1\nmax_kld: null\ncamera_std_ratio: null\n")
    asked = parameters(tmp_path / "c", model="awgn", gate=str(tmp_path / "gate.yaml"))
    with pytest.raises(UserError, match=r"camera GP: lag1_error 0\.\d+, allowed 0\.1; camera None: lag1.*gate\.json"):
        made(asked)
    assert not {"corpus.json", "README.md", "report.html"} & set(tree(tmp_path / "c"))
    evidence = json.loads((tmp_path / "c" / "gate.json").read_text())
    assert evidence["passed"] is False
    assert evidence["cameras"]["GP"]["lag1_error"] > 0.3  # neighbours of the references correlate by a half
    with pytest.raises(UserError, match="the store is not finished"):
        Corpus.open(str(tmp_path / "c"))
    reason = "to show what the gate is for"
    _, shards_made = made(asked.model_copy(update={"override_gate": reason}))
    assert shards_made["made"] == 0
    record = json.loads((tmp_path / "c" / "corpus.json").read_text())
    assert record["override"] == json.loads((tmp_path / "c" / "gate.json").read_text())["override"] == reason
    for name in ("README.md", "report.html"):
        assert reason in (tmp_path / "c" / name).read_text()
    assert "camera GP: lag1_error" in (tmp_path / "c" / "README.md").read_text()
    before = tree(tmp_path / "c")
    (tmp_path / "c" / "noisy" / "c" / "0" / "0" / "0" / "0" / "0").unlink()
    made(recorded_parameters(str(tmp_path / "c")))  # what was decided is not asked again when it is mended
    assert tree(tmp_path / "c") == before


def test_noise_that_is_correlated_like_the_references_passes(parameters: Make, made: Made, tmp_path: Path) -> None:
    (tmp_path / "gate.yaml").write_text("max_rejected_share: 0.1\n")  # and all limits of cameras
    published, _ = made(parameters(tmp_path / "c", model="spectrum_matched", gate=str(tmp_path / "gate.yaml")))
    verdict = json.loads((tmp_path / "c" / "gate.json").read_text())
    assert verdict["passed"]
    assert (verdict["override"], verdict["failures"]) == (None, [])
    assert published.pairs == 36
    assert sum(camera["pairs"] for camera in verdict["cameras"].values()) == 36
