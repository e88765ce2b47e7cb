"""Markup in names: every page and every card shows it as text. Markdown is looked at as a browser would see it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from markdown_it import MarkdownIt

from flows.paper.pages import Page
from pngmodel.denoisers import DenoiserConfig
from pngmodel.training.denoising import DenoiserSettings
from tasks.corpus.plan import CorpusParameters
from tasks.datasets.catalogue import load_catalogue
from tasks.datasets.extraction import Geometry, extract_patches
from tasks.datasets.ingest import describe, ingest
from tasks.denoising.evaluation import EvaluateDenoiserParameters, measure_all, measurements, record_of
from tasks.denoising.measurement import TestSet
from tasks.denoising.report import fidelity_markdown, write_denoiser_report
from tasks.denoising.training import Arm, DenoiserTask, DenoiserTrainingConfig, planned_arms, train_denoisers
from tasks.evaluation.metadata import ROWS
from tasks.evaluation.metadata_report import metadata_table, write_metadata_report
from tasks.evaluation.noise import EvaluateParameters, evaluate_noise, write_report
from tasks.models.promotion import findings_table
from tasks.reports.markdown import code, plain
from tasks.reports.pages import TEXTS
from tasks.reports.tables import c2st_table, trained_table
from tasks.runtime.artifacts import table
from tasks.runtime.clusters import ClusterConfig
from tasks.runtime.devices import Devices

SCRIPT, IMAGE = "<script>alert(1)</script>", '"><img src=x onerror=alert(2)>'
LINK, TEMPLATE, CELL = "[x](javascript:alert(3))", "{{7*7}}", "a|b`c`$x_$ <u>"
EVIL = f"{SCRIPT}{IMAGE}{LINK}{TEMPLATE}{CELL}"
TAGS = {"script", "iframe", "object", "embed", "u", "form", "base", "meta-refresh"}


class Seen(HTMLParser):
    """What a browser would make of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.wrong: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag in TAGS:
            self.wrong.append(tag)
        for name, value in attrs:
            source = (value or "").strip().lower()
            if name.startswith("on") or source.startswith(("javascript:", "vbscript:")) or source == "x":
                self.wrong.append(f"{tag} {name}={value}")

    def handle_data(self, data: str) -> None:
        self.text += data


def seen(page: str) -> Seen:
    found = Seen()
    found.feed(page)
    found.close()
    assert found.wrong == [], found.wrong
    return found


def rendered(markdown: str) -> Seen:
    """As Prefect's UI and code hosts show it: tables, and HTML let through."""
    return seen(MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown))


def yaml_of(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.fixture(scope="module")
def evil(tmp_path_factory: pytest.TempPathFactory, pair: Any, save: Any) -> Path:
    """A folder with a patch store whose dataset says such things wherever a dataset may say anything."""
    root = tmp_path_factory.mktemp("evil")
    for seed in range(4):
        for side, image in zip(("noisy", "clean"), pair(seed, 96, 96), strict=True):
            name = f"{seed}{EVIL.replace('/', '-')[:180]}"
            save(root / "set" / side / f"{name}.png", image)
    (root / "set" / "noisy" / f"torn{SCRIPT.replace('/', '-')}.png").write_bytes(b"x")
    (root / "rules.yaml").write_text(
        f"dataset: evil\nlicence: {yaml_of(EVIL)}\nnoisy: noisy/(?P<pair>.+)\\.png\nclean: clean/(?P<pair>.+)\\.png\n"
        f"cases:\n  - {{match: '.*', scene: {yaml_of(EVIL)}, camera: {yaml_of(EVIL)}}}\n"
        f"  - {{match: '0.*', split: {yaml_of(EVIL)}, camera: {yaml_of('other' + EVIL)}}}\n"
    )
    ingest(str(root / "set"), str(root / "rules.yaml"), str(root / "catalogue"))
    extract_patches(str(root / "catalogue"), str(root / "patches"), geometry=Geometry(size=32), shard=8)
    return root


def shows(found: Seen, text: str = SCRIPT) -> None:
    assert text in found.text, found.text[:3000]


def test_the_catalogue(evil: Path) -> None:
    assert {r["camera"] for r in load_catalogue(str(evil / "catalogue"))[0].to_pylist()} == {EVIL, "other" + EVIL}
    page = seen((evil / "catalogue" / "report.html").read_text())
    shows(page)
    shows(page, EVIL)
    artifact = rendered(describe(str(evil / "catalogue")))
    shows(artifact, EVIL)
    shows(artifact, "torn<script>")
    assert artifact.tags.count("img") == 1


@pytest.fixture(scope="module")
def corpus(evil: Path, made: Any) -> Path:
    """A corpus of that store, which failed a gate for a reason that says such things, too."""
    gate = evil / "gate.yaml"
    gate.write_text("sampled_pairs: 4\nmax_kld: 0.0000001\n")
    made(
        CorpusParameters(
            output=str(evil / "corpus"),
            model="heteroscedastic",
            references=str(evil / "patches"),
            clean=str(evil / "set" / "clean"),
            clean_licence=EVIL,
            crop=32,
            shard=16,
            gate=str(gate),
            override_gate=EVIL,
        )
    )
    return evil / "corpus"


def test_the_corpus(corpus: Path) -> None:
    shows(seen((corpus / "report.html").read_text()))
    card = rendered((corpus / "README.md").read_text())
    shows(card, EVIL)
    assert "img" not in card.tags
    assert "a" not in card.tags


def test_an_evaluation(evil: Path) -> None:
    found = evaluate_noise(EvaluateParameters(model="awgn", references=str(evil / "patches"), limit=4, baselines=False))
    write_report(found, str(evil / "evaluation.html"))
    shows(seen((evil / "evaluation.html").read_text()), EVIL)


def test_denoisers(evil: Path) -> None:
    config = DenoiserTrainingConfig(
        denoiser=DenoiserConfig(name="dncnn", settings={"depth": 3, "width": 4}),
        train=DenoiserSettings(
            steps=1,
            batch=1,
            crop=16,
            optimiser="adam",
            learning_rate=1e-2,
            gradient_clip=None,
            ema=0,
            checkpoint_every=2,
        ),
    )
    arms = planned_arms([Arm(name="made", synthetic="awgn")], control=True)
    store, folder = str(evil / "patches"), evil / "denoisers"
    tasks = [
        DenoiserTask(config, "c.yaml", (store,), "train", arm, 0, str(folder / arm.name / "seed-0"), Devices(), None)
        for arm in arms
    ]
    results = train_denoisers(tasks, ClusterConfig(kind="inline"))
    card = (Path(results[0]["bundle"]) / "README.md").read_text()
    shows(rendered(card), EVIL)
    assert "img" not in rendered(card).tags
    tests = [TestSet(name="own", references=store, split="train", limit=2)]
    given = EvaluateDenoiserParameters(denoisers=[str(folder)], tests=tests, output=str(evil / "denoised"))
    found = measure_all(measurements(given), given.output, given.cluster, lambda done, total: None)
    record = record_of(given, found)
    seen(Path(write_denoiser_report(given, record, found)).read_text())
    record["tests"] = {EVIL: record["tests"]["own"] | {"trained_on": [EVIL]}}
    record["control"] = EVIL
    renamed = record["tests"][EVIL]["metrics"]
    renamed[EVIL] = renamed.pop("made")
    record["tests"][EVIL]["differences"] = {}
    shows(rendered(fidelity_markdown(record)), EVIL)


def test_the_classifier_of_metadata(tmp_path: Path) -> None:
    facts = {"samples": 2, "training_samples": 2, "scenes": [EVIL], "classes_not_tested": [EVIL]}
    row = {"top1": 0.5, "top3": 0.5, "balanced": 0.5, "within_dataset": 0.5}
    question = {
        "classes": [EVIL, "other"],
        "metrics": dict.fromkeys(("prompts", "noise"), row),
        "published": {},
        "parameters": {"prompts": 1, "noise": 1},
        "held_out": {EVIL: facts},
        "skipped": [{"class": EVIL, "reason": EVIL}],
        "confusion": {name: [[1, 0], [0, 1]] for name in ROWS},
    }
    record = {"pairs": 4, "budget": {"seeds": 1}, "tasks": {EVIL: question}, "skipped": [EVIL], "references": EVIL}
    record |= {"model": {"digest": EVIL}, "code": EVIL, "device": EVIL}
    write_metadata_report(record, str(tmp_path / "page.html"))
    shows(seen((tmp_path / "page.html").read_text()), EVIL)
    shows(rendered(metadata_table(record)), EVIL)


def tables() -> Iterator[tuple[str, str]]:
    yield "facts", table({EVIL: EVIL})
    yield "gate", findings_table({"findings": [{"figure": EVIL, "value": 1, "rule": EVIL, "passed": True}]})
    yield "two-sample test", c2st_table({"metrics": {EVIL: {"auc": 0.5}}, "simplifications": {EVIL: [EVIL]}})
    yield "trained", trained_table([{"arm": EVIL, "seed": 0, "steps": 1, "finished": True, "bundle": EVIL}])
    page = Page("x", "x", "x", [EVIL], [[EVIL]], [], {EVIL: EVIL})
    yield "paper", page.markdown()
    yield "text", plain(EVIL)
    yield "code", code(EVIL)
    yield "code of ticks", code(f"``{EVIL}`")
    yield "lines", plain(f"x\n# heading\n\n<script>\n{EVIL}")


@pytest.mark.parametrize(("name", "markdown"), tables())
def test_markdown_of_names_is_text(name: str, markdown: str) -> None:
    found = rendered(markdown)
    shows(found, EVIL)
    assert {"img", "a", "h1"} & set(found.tags) <= ({"h1"} if name == "paper" else set())
    rows = [line for line in markdown.splitlines() if line.startswith("|")]
    assert found.tags.count("tr") == len(rows) - bool(rows)


def test_values_in_cards_are_text_unless_they_are_markdown() -> None:
    card = TEXTS.from_string("# {{ name }}\n\n{{ name | code }}\n\n    {{ name | line }}\n").render(name=EVIL)
    found = rendered(card)
    assert found.text.count(EVIL) == 3
    assert {"img", "a"} & set(found.tags) == set()


def test_no_template_lets_anything_through() -> None:
    """Autoescaping covers text and quoted attributes; it covers no script, style or address that is a value."""
    for path in sorted(Path("tasks/reports/templates").glob("*.html")):
        page = path.read_text()
        assert not re.search(r"\|\s*safe|autoescape|<script|javascript:", page), path
        assert not re.search(r"\son\w+\s*=", page), path
        assert not re.search(r"=\{\{", page), path  # an attribute without quotes
        sources = re.findall(r"(?:href|src|action)=\"([^\"]*)\"", page)
        assert all(source in ("{{ picture.uri }}", "{{ uri }}") or "{" not in source for source in sources), (
            path,
            sources,
        )
