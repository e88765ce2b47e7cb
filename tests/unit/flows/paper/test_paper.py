"""Budgets and pages of the paper's tables."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from flows.paper import published, tables
from flows.paper.budget import load_budget, write_variants
from flows.paper.pages import Page, write_index, write_page
from pngmodel.errors import UserError
from tasks.denoising.training import DenoiserTrainingConfig
from tasks.runtime.configuration import load_yaml
from tasks.training.noise_model import TrainingConfig

FACTS = {"commit": "c"}


@pytest.mark.parametrize("name", ["smoke", "small", "full"])
def test_budgets_name_files_that_are_there(name: str, tmp_path: Path) -> None:
    budget = load_budget(name)
    load_yaml(budget.denoiser, DenoiserTrainingConfig)
    for location in write_variants(budget.ablation, str(tmp_path)).values():
        config = load_yaml(location, TrainingConfig)
        assert config.pdit.steps == budget.ablation.pdit_steps
        config.model_settings(location)


@pytest.mark.parametrize("path", sorted(Path("configs/denoisers").glob("*.yaml")), ids=lambda p: p.stem)
def test_recipes_of_denoisers_are_valid(path: Path) -> None:
    load_yaml(path, DenoiserTrainingConfig)


def test_wrong_budgets(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="budget 'huge' does not exist; choose one of full, small, smoke"):
        load_budget("huge")
    content = yaml.safe_load(Path("configs/paper/smoke.yaml").read_text())
    (tmp_path / "b.yaml").write_text(yaml.safe_dump(content | {"scales": [1, 8]}))
    with pytest.raises(UserError, match="key 'scales' contains 8, which is greater than key 'scale'"):
        load_budget(str(tmp_path / "b.yaml"))


def test_the_published_means_are_those_of_the_published_rows() -> None:
    assert sum(published.KLD.values()) / 5 == pytest.approx(published.KLD_MEAN, abs=5e-5)
    for arm, mean in (("real", 36.27), ("png", 37.65), ("naflow", 37.17)):
        assert sum(published.MIXED[arm].values()) / 4 == pytest.approx(mean, abs=5e-3)


def test_a_page_has_ours_theirs_and_what_differs(tmp_path: Path) -> None:
    def row(psnr: float) -> dict:
        return {"psnr": psnr, "ssim": 0.9, "psnr_spread": 0.1, "seeds": [0, 1]}

    trained = {"seed": 0, "arm": "png", "training": {"steps": 7}}
    difference = {"psnr": {"mean": -0.5, "low": -0.7, "high": 0.1}}
    metrics = {"noisy": row(20), "real": row(30), "png": row(29.5)}
    record = {
        "control": "real",
        "denoisers": [trained],
        "tests": {name: {"metrics": metrics, "differences": {"png": difference}} for name in ("own", "other")},
    }
    page = tables.downstream_page(record, ["png", "absent"], ["Seen scenes."], FACTS)
    location = Path(write_page(str(tmp_path), page))
    text = location.read_text()
    assert "| own | png | 29.50 ± 0.10 | 0.9000 | -0.50 | -0.70 to +0.10 | 37.55 |" in text
    assert "| other | png | 29.50 ± 0.10 | 0.9000 | -0.50 | -0.70 to +0.10 | – |" in text  # the paper's is of one set
    assert "7 steps" in text
    assert "- Seen scenes." in text
    assert "absent" not in text
    index = Path(write_index(str(tmp_path), [page], "smoke")).read_text()
    assert f"]({location.name})" in index


def test_every_table_row_has_as_many_cells_as_its_head() -> None:
    metrics = dict.fromkeys(("kld_naflow", "kld_naflow_rounded", "akld", "lag1_error", "std_ratio"), 0.1)
    noise = {"cameras": {"S6": {"model": metrics, "floor": metrics}}, "cameras_pairs": {"S6": 3}, "pairs": 3}
    noise |= {"metrics": {"model": metrics, "floor": metrics}}
    rates = {"images_per_second": {n: {"256": 2.0, "512": 1.0} for n in ("png", "naflow")}}
    pages: list[Page] = [
        tables.noise_page({"own": noise}, [], FACTS),
        tables.ablation_page({"prompts none": noise, "mine": noise}, "1 + 1 steps", FACTS),
        tables.c2st_page({"own": {"metrics": {"model": {"auc": 0.9}, "floor": {"auc": 0.5}}}}, [], FACTS),
        tables.speed_page(rates, FACTS),
    ]
    for page in pages:
        assert page.rows
        assert {len(cells) for cells in page.rows} == {len(page.head)}, page.name
        assert page.differs
