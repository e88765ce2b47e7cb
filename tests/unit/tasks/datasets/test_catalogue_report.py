"""The page and the artifact of a catalogue: complete, self-contained, and safe to open."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from tasks.datasets.catalogue import load_catalogue
from tasks.datasets.catalogue_report import classes, markdown_classes, representative_rows
from tasks.datasets.ingest import IngestSettings, describe, ingest

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture
def small(sidd_small: Path, tmp_path: Path) -> str:
    ingest(str(sidd_small), "sidd-small", str(tmp_path / "catalogue"))
    return str(tmp_path / "catalogue")


def rows_of(url: str) -> list[dict]:
    return load_catalogue(url)[0].to_pylist()


def test_the_page_shows_pictures_classes_and_needs_no_network(small: str) -> None:
    page = (Path(small) / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 2  # examples, noise against ISO
    assert "http" not in page
    for camera in ("S6", "GP", "IP"):
        assert f"<td>{camera}</td>" in page
    assert "No files were rejected." in page


def test_every_reason_of_rejection_is_on_the_page(folders: tuple[Path, Path], tmp_path: Path) -> None:
    root, rules = folders
    (root / "clean" / "wall_100_1.png").unlink()
    (root / "noisy" / "street_100_1.png").write_bytes(b"")
    result = ingest(str(root), str(rules), str(tmp_path / "c"))
    page, artifact = (tmp_path / "c" / "report.html").read_text(), describe(str(tmp_path / "c"))
    assert len(result["rejected"]) == 2
    for item in result["rejected"]:
        assert item["reason"].split("/")[-1] in page
        assert item["id"] in artifact


def test_markup_in_names_stays_text(tmp_path: Path, pair: Callable, save: Callable) -> None:
    for k, name in enumerate((MARKUP, "plain")):
        noisy, clean = pair(k)
        (tmp_path / "d").mkdir(exist_ok=True)
        save(tmp_path / "d" / f"{name.replace('/', '')}_noisy.png", noisy)
        if name == "plain":
            save(tmp_path / "d" / f"{name}_clean.png", clean)
    result = ingest(str(tmp_path / "d"), "folders", str(tmp_path / "c"))
    assert MARKUP in result["rejected"][0]["id"]
    assert MARKUP not in (tmp_path / "c" / "report.html").read_text()
    line = next(line for line in describe(str(tmp_path / "c")).splitlines() if "onerror" in line)
    assert line.startswith("- `")
    assert line.count("`") == 4


def test_the_artifact_is_small_enough_for_the_ui_and_its_picture_decodes(small: str) -> None:
    markdown = describe(small)
    assert len(markdown) < 200_000
    encoded = re.search(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", markdown)
    assert encoded is not None
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[1]))))
    assert picture.std() > 20  # images, no empty frames


def test_classes_hold_the_means_of_their_pairs(small: str) -> None:
    rows = rows_of(small)
    line = next(c for c in classes(rows) if c["camera"] == "GP")
    row = next(r for r in rows if r["camera"] == "GP")
    assert line["images"] == "1"
    assert line["ISO"] == "800"
    assert line["noise std"] == f"{100 * sum(row['noise_std']) / 3:.2f} %"
    assert sum(int(c["images"]) for c in classes(rows)) == len(rows)


def test_examples_go_from_little_to_much_noise_and_cover_every_class_of_few(small: str) -> None:
    picked = representative_rows(rows_of(small))
    strengths = [sum(r["noise_std"]) for r in picked]
    assert strengths == sorted(strengths)
    assert {r["camera"] for r in picked} == {"S6", "GP", "IP"}


def test_what_is_the_same_for_all_stands_above_the_table(small: str) -> None:
    head, _, table = markdown_classes(rows_of(small)).partition("\n\n")
    assert "dataset sidd_small" in head
    assert "sidd_small" not in table
    assert "| S6 |" in table


def test_a_source_of_clean_images_has_a_page_too(folders: tuple[Path, Path], tmp_path: Path) -> None:
    settings = IngestSettings(licence="CC0")
    ingest(str(folders[0] / "clean"), "clean", str(tmp_path / "c"), settings)
    page = (tmp_path / "c" / "report.html").read_text()
    assert page.count("data:image/png;base64,") == 1
    assert "The dataset has only noisy or only clean images" in page
    assert "CC0" in page
    assert "| clean |" in describe(str(tmp_path / "c")) or "dataset clean" in describe(str(tmp_path / "c"))


def shown_picture(url: str) -> np.ndarray:
    encoded = re.search(r"data:image/png;base64,([A-Za-z0-9+/=]+)", (Path(url) / "report.html").read_text())
    assert encoded is not None
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(encoded[1]))).convert("L"), float)


def test_images_that_fill_little_of_their_range_are_shown_bright(tmp_path: Path, pair: Callable) -> None:
    levels = pair(0, 160, 160, 1, "uint16")[1][..., 0]
    for name, pixels in (("bright", levels), ("dark", levels // 64)):
        (tmp_path / name).mkdir()
        tifffile.imwrite(tmp_path / name / "x.tif", pixels)
        ingest(str(tmp_path / name), "clean", str(tmp_path / f"c_{name}"))
    bright, dark = (shown_picture(str(tmp_path / f"c_{name}")) for name in ("bright", "dark"))
    assert abs(dark.mean() - bright.mean()) < 0.25 * bright.mean()


@pytest.mark.filterwarnings("error")
def test_names_in_any_script_warn_of_nothing(tmp_path: Path, pair: Callable, save: Callable) -> None:
    save(tmp_path / "d" / "日本_ünïcode.png", pair(0)[1])
    ingest(str(tmp_path / "d"), "clean", str(tmp_path / "c"))
    assert "<b>0</b><span>megapixels" not in (tmp_path / "c" / "report.html").read_text()
