"""The classifier of metadata on real stores: what it sees, what is held out, the record and its page."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pngmodel.errors import UserError
from pngmodel.generator import NoiseGenerator
from pngmodel.images import to_unit
from tasks.datasets.ingest import ingest
from tasks.datasets.reference_pairs import open_pairs
from tasks.evaluation.metadata import MetadataParameters, classify_metadata
from tasks.evaluation.metadata_report import metadata_table, write_metadata_report
from tasks.evaluation.metadata_samples import choose_samples, read_samples
from tasks.stores.io.filesystem import read_json

RULES = """\
dataset: {name}
licence: CC0
noisy: noisy/(?P<pair>(?P<scene>[a-z]+)_(?P<camera>[A-Z]+)_(?P<iso>\\d+)_\\d+)\\.png
clean: clean/(?P<pair>.+)\\.png
"""


@pytest.fixture
def cameras(tmp_path: Path, pair: Callable, save: Callable) -> Callable[..., str]:
    """A catalogue of images of 64 x 64; the noise of a camera differs in strength and is smoother for some."""

    def make(name: str, names: str = "AB", scenes: str = "abcd", least: int = 2, white: str = "B") -> str:
        root = tmp_path / name
        rng = np.random.default_rng(0)
        for number, (camera, scene, k) in enumerate((c, s, k) for c in names for s in scenes for k in range(least)):
            noisy, clean = pair(number, 64, 64)
            if camera in white:
                grain = rng.standard_normal(clean.shape) * 12
                noisy = np.clip(clean + grain, 0, 255).round().astype(np.uint8)
            for side, image in (("noisy", noisy), ("clean", clean)):
                save(root / side / f"{scene}_{camera}{name.upper()}_{100 * (1 + k)}_{k}.png", image)
        (tmp_path / f"{name}.yaml").write_text(RULES.format(name=name))
        ingest(str(root), str(tmp_path / f"{name}.yaml"), str(tmp_path / f"catalogue-{name}"))
        return str(tmp_path / f"catalogue-{name}")

    return make


def parameters(*references: str, **changes: Any) -> MetadataParameters:
    fields = {"references": list(references), "side": 64, "steps": 40, "batch": 8, "seeds": 2, "least": 3, "hidden": 16}
    return MetadataParameters(**(fields | changes))


BASELINE = {"model": "heteroscedastic", "features": "all", "seeds": 1, "steps": 5}
"""Features that cost nothing: the shipped model takes seconds per image."""


def test_prompts_are_the_generators_own(cameras: Callable) -> None:
    url = cameras("x")
    samples, skipped = choose_samples("shipped", "cpu", [url], "prompts", limit=3, side=64)
    assert skipped == []
    assert len(samples.picks) == 3
    features, noise = read_samples(samples)
    generator, source = NoiseGenerator.from_pretrained(), open_pairs(url)
    for row, (_, k) in enumerate(samples.picks):
        noisy, clean = source.read(k)
        expected = generator.extract(to_unit(noisy, "")[0][0], to_unit(clean, "")[0][0])
        names = ["global_0", "global_1", "global_2", "global_3", "local"]
        torch.testing.assert_close(features[row], torch.cat([expected[n].flatten() for n in names]))
        difference = noisy.astype(int) - clean.astype(int)
        np.testing.assert_array_equal(noise[row].float().round().numpy().transpose(1, 2, 0), difference)
    everything = read_samples(choose_samples("shipped", "cpu", [url], "all", limit=2, side=64)[0])[0]
    assert everything.shape[1] > features.shape[1]


def test_the_record_and_its_page(cameras: Callable, tmp_path: Path) -> None:
    first, second = cameras("x"), cameras("y", "CD", scenes="efgh", white="D")
    steps: list[tuple[int, int]] = []
    output, page = str(tmp_path / "record.json"), tmp_path / "page.html"
    p = parameters(first, second, output=output, seeds=2, steps=60)
    record = classify_metadata(p, lambda done, total: steps.append((done, total)))
    assert read_json(output) == record == json.loads(json.dumps(record))
    assert (record["protocol"], record["pairs"]) == ("metadata-prompts", 32)
    assert steps == [(k, 8) for k in range(9)]
    camera, both = record["tasks"]["camera"], record["tasks"]["camera+iso"]
    assert camera["classes"] == ["AX", "BX", "CY", "DY"]
    assert len(both["classes"]) == 8
    assert both["classes"][0] == "AX ISO 100"
    metrics = camera["metrics"]
    assert metrics["chance"] == {"top1": 0.25, "top3": 0.75, "balanced": 0.25, "within_dataset": 0.5}
    assert set(metrics) == {"prompts", "noise", "majority", "chance"}
    for row in ("prompts", "noise"):
        assert len(metrics[row]["top1_by_seed"]) == 2
        assert metrics[row]["top1"] == pytest.approx(sum(metrics[row]["top1_by_seed"]) / 2)
        counts = np.array(camera["confusion"][row])
        tested = [facts["samples"] for facts in camera["held_out"].values()]
        assert counts.sum() == sum(tested)
        if len(set(tested)) == 1:
            assert np.trace(counts) / counts.sum() == pytest.approx(metrics[row]["top1"])
    assert abs(camera["parameters"]["noise"] / camera["parameters"]["prompts"] - 1) < 0.05
    for facts in camera["held_out"].values():
        assert facts["training_samples"] + facts["samples"] == 32
        assert facts["classes_not_tested"] == []
    assert metrics["prompts"]["within_dataset"] >= metrics["prompts"]["top1"]
    assert metrics["prompts"]["within_dataset"] > 0.8  # white against smooth noise
    write_metadata_report(record, str(page))
    text = page.read_text()
    assert text.count("data:image/png;base64") == 4
    assert "94.5" in text
    assert "http" not in text.replace("http-equiv", "")
    table = metadata_table(read_json(output))  # whose keys are sorted
    assert table == metadata_table(record)
    assert table.index("| prompts |") < table.index("| noise itself") < table.index("| chance |")
    assert "| chance | 25.0 | 75.0 | 25.0 | 50.0 |" in table


def test_it_repeats_and_workers_find_the_same(cameras: Callable) -> None:
    url = cameras("x")
    first = classify_metadata(parameters(url, **BASELINE))
    assert classify_metadata(parameters(url, **BASELINE)) == first
    assert classify_metadata(parameters(url, **BASELINE, cluster={"kind": "local", "workers": 1})) == first


def test_what_cannot_be_used(cameras: Callable, catalogue: str, patches: str) -> None:
    url = cameras("x")
    with pytest.raises(UserError, match=r"heteroscedastic: has no prompt blocks; .*--features all"):
        classify_metadata(parameters(url, model="heteroscedastic"))
    with pytest.raises(UserError, match=r"no pair can be used \(.*has a side of 32 pixels, less than --side"):
        classify_metadata(parameters(patches))
    with pytest.raises(UserError, match=r"1 classes of camera can be split by scene|0 classes of camera"):
        classify_metadata(parameters(cameras("z", "A"), **BASELINE))
    with pytest.raises(UserError, match=r"has only one scene \(a\)"):
        classify_metadata(parameters(cameras("w", scenes="a", least=4), **BASELINE))
    record = classify_metadata(parameters(url, **BASELINE))
    assert record["protocol"] == "metadata-all"
    mixed = classify_metadata(parameters(url, catalogue, **BASELINE))  # of whose cameras one is known
    assert {"id": "wall_100_1", "reason": "the camera is unknown"} in mixed["skipped"]
    assert mixed["tasks"]["camera"]["skipped"] == [{"class": "GP", "reason": "has only one scene (street), 2 samples"}]
