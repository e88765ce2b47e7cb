"""Synthesis: sample i is a function of the recipe and i, of nothing else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.generate import make_corpus_shards, make_shards
from tasks.corpus.plan import CorpusParameters, plan_corpus
from tasks.datasets.reference_pairs import open_references
from tasks.stores.corpus_store import writer

Make = Callable[..., CorpusParameters]
Images = Callable[..., tuple[np.ndarray, np.ndarray]]
Rows = Callable[..., list[dict[str, Any]]]


def test_clean_halves_are_windows_and_noisy_halves_are_noisy(
    parameters: Make, tmp_path: Path, pair: Callable, rows_of: Rows, images_of: Images
) -> None:
    plan = plan_corpus(parameters(tmp_path / "c"))
    assert plan.layout.pairs == 36
    assert make_corpus_shards(plan) == {"made": 5, "kept": 0}
    clean, noisy = images_of(plan)
    noisy = noisy[0]
    rows = rows_of(plan)
    names = ["street_100_1.png", "street_800_2.png", "wall_100_1.png", "wall_100_2.png"]
    for k, row in enumerate(rows):
        whole = pair(names.index(row["clean"]))[1]
        window = whole[row["y"] : row["y"] + 32, row["x"] : row["x"] + 32]
        np.testing.assert_array_equal(np.moveaxis(clean[k], 0, -1), window)
        std = (noisy[k].astype(float) - clean[k]).std() / 255
        assert row["noise_std"] == pytest.approx(std, rel=1e-5)
        assert 0.7 < std / row["expected_std"] < 1.4
    assert len({r["noise_sha256"] for r in rows}) == len({r["seed"] for r in rows}) == 36
    assert "CC0" in plan.licence


def test_shard_size_and_order_do_not_change_a_pixel(parameters: Make, tmp_path: Path, images_of: Images) -> None:
    make_corpus_shards(first := plan_corpus(parameters(tmp_path / "a")))
    expected = images_of(first)
    make_corpus_shards(smaller := plan_corpus(parameters(tmp_path / "b", shard=5)))
    backwards = plan_corpus(parameters(tmp_path / "c"))
    writer(backwards.parameters.output, backwards.layout, backwards.recipe).prepare()
    assert list(make_shards(reversed(list(backwards.tasks())))) == [4, 3, 2, 1, 0]
    for other in (smaller, backwards):
        for found, wanted in zip(images_of(other), expected, strict=True):
            np.testing.assert_array_equal(found, wanted)


def test_a_larger_scale_contains_the_draws_of_a_smaller(
    parameters: Make, tmp_path: Path, rows_of: Rows, images_of: Images
) -> None:
    make_corpus_shards(small := plan_corpus(parameters(tmp_path / "one")))
    plan = plan_corpus(parameters(tmp_path / "three", scale=3))
    make_corpus_shards(plan)
    one, three = images_of(small), images_of(plan)
    assert three[1].shape == (3, 36, 3, 32, 32)
    np.testing.assert_array_equal(three[0], one[0])  # clean patches are stored once
    np.testing.assert_array_equal(three[1][0], one[1][0])
    assert not (three[1][1] == three[1][0]).all(axis=(1, 2, 3)).any()
    assert len({r["seed"] for r in rows_of(plan)}) == 108


def test_another_seed_is_another_corpus(parameters: Make, tmp_path: Path) -> None:
    plans = [plan_corpus(parameters(tmp_path / "c", seed=seed)) for seed in (0, 1)]
    assert not {plans[0].sample(k).seed for k in range(36)} & {plans[1].sample(k).seed for k in range(36)}
    make_corpus_shards(plans[0])
    with pytest.raises(UserError, match=r"holds a different corpus.*seed \(0 exists, 1 requested\)"):
        make_corpus_shards(plans[1])
    assert make_corpus_shards(plans[0]) == {"made": 0, "kept": 5}


def test_another_licence_is_another_corpus(parameters: Make, tmp_path: Path, rows_of: Rows) -> None:
    """Rows of shards that are kept would tell the old one."""
    make_corpus_shards(plan := plan_corpus(parameters(tmp_path / "c", clean_licence="CC-BY-4.0")))
    assert {row["clean_licence"] for row in rows_of(plan)} == {"CC-BY-4.0"}
    with pytest.raises(UserError, match=r"a different corpus.*clean_licence \('CC-BY-4.0' exists, 'CC0' requested"):
        make_corpus_shards(plan_corpus(parameters(tmp_path / "c", clean_licence="CC0")))


def test_references_are_drawn_from_all(parameters: Make, tmp_path: Path) -> None:
    plan = plan_corpus(parameters(tmp_path / "c", scale=4))
    used = Counter(plan.sample(k).reference for k in range(144))
    assert max(used.values()) < 15  # 144 draws of 36
    assert len(used) > 30


def test_own_takes_the_reference_of_the_same_image(
    parameters: Make, patches: str, tmp_path: Path, rows_of: Rows
) -> None:
    plan = plan_corpus(parameters(tmp_path / "c", clean=patches, reference_policy="own"))
    assert [plan.sample(k).reference for k in range(36)] == list(range(36))
    make_corpus_shards(plan)
    assert all(r["reference"] == r["clean"] for r in rows_of(plan))


def test_own_without_partners_is_explained(parameters: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"0 references are called 'street_100_1\.png'.*'uniform'"):
        plan_corpus(parameters(tmp_path / "c", reference_policy="own"))


def test_unusable_clean_images_are_listed(
    parameters: Make, folders: tuple[Path, Path], tmp_path: Path, pair: Callable, save: Callable
) -> None:
    root = folders[0] / "clean"
    save(root / "small.png", pair(8, 24, 90)[1])
    save(root / "grey.png", pair(8, channels=1)[1])
    save(root / "x_deep.tif", pair(8, dtype="uint16")[1])
    (root / "broken.png").write_bytes(b"x")
    # The first usable image in order of names decides the kind, and that is the grey one.
    plan = plan_corpus(parameters(tmp_path / "c"))
    assert plan.layout.channels == 1
    (root / "grey.png").rename(root / "x_grey.png")
    plan = plan_corpus(parameters(tmp_path / "c"))
    assert plan.layout.channels == 3
    found = {r.id: r.reason for r in plan.clean_index.source.rejected}
    assert set(found) == {"small.png", "x_grey.png", "x_deep.tif", "broken.png"}
    assert "24 x 90" in found["small.png"]
    assert "1 channels" in found["x_grey.png"]
    assert "uint16" in found["x_deep.tif"]
    assert plan.layout.pairs == 36


def test_no_patch_fits(parameters: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no clean image is large enough for a patch of 128.*96 x 96"):
        plan_corpus(parameters(tmp_path / "c", crop=128))


def test_deep_grey_clean_images_work_with_colour_references(
    parameters: Make,
    tmp_path: Path,
    pair: Callable,
    save: Callable,
    images_of: Images,
) -> None:
    save(tmp_path / "deep" / "a.tif", pair(8, 64, 64, 1, "uint16")[1])
    make_corpus_shards(plan := plan_corpus(parameters(tmp_path / "c", clean=str(tmp_path / "deep"))))
    clean, noisy = images_of(plan)
    assert noisy.dtype == np.uint16
    assert noisy.shape == (1, 4, 1, 32, 32)
    assert 0.005 < (noisy[0].astype(float) - clean).std() / 65535 < 0.2


def test_a_finished_corpus_is_kept_and_a_damaged_shard_replaced(
    parameters: Make, tmp_path: Path, tree: Callable[[Any], dict[str, bytes]]
) -> None:
    plan = plan_corpus(parameters(tmp_path / "c"))
    steps: list[tuple[int, int]] = []
    make_corpus_shards(plan, lambda done, total: steps.append((done, total)))
    assert steps == [(0, 36), (8, 36), (16, 36), (24, 36), (32, 36), (36, 36)]
    before = tree(tmp_path / "c")
    (tmp_path / "c" / "noisy" / "c" / "0" / "4" / "0" / "0" / "0").write_bytes(b"garbage")
    assert make_corpus_shards(plan) == {"made": 1, "kept": 4}
    assert tree(tmp_path / "c") == before


def test_clean_images_replaced_in_the_same_process_are_another_corpus(
    parameters: Make, folders: tuple[Path, Path], tmp_path: Path, pair: Callable, save: Callable
) -> None:
    old = plan_corpus(parameters(tmp_path / "c"))
    make_corpus_shards(old)
    save(folders[0] / "clean" / "street_100_1.png", pair(50)[1])
    with pytest.raises(UserError, match=r"holds a different corpus.*recipe\.clean"):
        make_corpus_shards(plan_corpus(parameters(tmp_path / "c")))
    (tmp_path / "c" / "parts" / "00000.parquet").unlink()
    with pytest.raises(IntegrityError, match="changed"):  # the old plan cannot be finished with the new images
        make_corpus_shards(old)


@pytest.mark.parametrize(
    "change",
    [
        {"scale": 0},
        {"crop": 8},
        {"crops_per_image": 0},
        {"weights": {"GP": -1}},
        {"mode": "clean"},
        {"reference_policy": "best"},
        {"seed": -1},
        {"modle": "awgn"},
    ],
)
def test_parameters_are_validated(parameters: Make, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        parameters(tmp_path / "c", **change)


def test_an_unknown_model_is_named(parameters: Make, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no_such_model"):
        plan_corpus(parameters(tmp_path / "c", model=str(tmp_path / "no_such_model")))


def test_code_packages_and_device_belong_to_the_recipe(
    parameters: Callable[..., CorpusParameters], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A corpus begun by other code is not finished by this one."""
    make_corpus_shards(plan_corpus(parameters(tmp_path / "c")))
    for name, value in (
        ("code_version", "0.0 other"),
        ("packages", {"torch": "1", "numpy": "1", "pillow": "1", "imagecodecs": "1"}),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(f"tasks.corpus.plan.{name}", lambda value=value: value)
            with pytest.raises(UserError, match=r"holds a different corpus; different settings: recipe\."):
                make_corpus_shards(plan_corpus(parameters(tmp_path / "c")))


def test_a_device_that_is_not_there_stops_before_anything_is_written(
    parameters: Callable[..., CorpusParameters], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="device 'cuda:99' cannot be used"):
        plan_corpus(parameters(tmp_path / "c", device="cuda:99"))
    assert not (tmp_path / "c").exists()


def test_only_references_of_the_split_are_used(parameters: Callable[..., CorpusParameters], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no references of split 'other'"):
        plan_corpus(parameters(tmp_path / "c", split="other"))
    plan = plan_corpus(parameters(tmp_path / "c", split="train"))
    source = open_references(plan.parameters.references)
    assert {source.references[plan.sample(k).reference].split for k in range(36)} == {"train"}
