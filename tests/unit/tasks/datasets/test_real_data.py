"""The real data that development uses, where it lies beside the checkout: nothing in it is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

DATA = Path(__file__).parents[5] / "shared" / "data"
CONFIGS = Path(__file__).parents[4] / "configs" / "datasets"
pytestmark = pytest.mark.skipif(not DATA.is_dir(), reason="the real data are not part of the checkout")


@pytest.mark.parametrize(
    ("folder", "adapter", "pairs"),
    [
        ("sidd_native", str(CONFIGS / "sidd_native_blocks.yaml"), 77),
        ("SIDD_Small_sRGB_Only", "sidd-small", 131),
        ("PolyU", "polyu", 62),
        ("cc60", "folders", 41),
        ("w2s8", "tiff", 18),
        ("clean/kodak24", "clean", 24),
        ("clean/bsds500_val100_jpg", "clean", 100),
    ],
)
def test_every_pair_of_the_pack_is_catalogued(ingested: Callable, folder: str, adapter: str, pairs: int) -> None:
    found = ingested(DATA / folder, adapter)
    assert found.reasons == {}
    assert len(found.rows) == pairs
    side = "clean" if adapter == "clean" else "noisy"
    for name, image in list(found.pixels(side))[:5]:
        np.testing.assert_array_equal(image.squeeze(), np.asarray(Image.open(found.rows[name][side])))


def test_microscopy_of_every_depth(ingested: Callable) -> None:
    tiffs, images = ingested(DATA / "micro", "tiff"), ingested(DATA / "micro", "folders")
    assert {r["dtype"] for r in tiffs.rows.values()} == {"float32", "uint16"}
    assert tiffs.reasons == {}
    assert sorted(images.rows) == ["bacteria_16bit", "fmd_confocal_fish3", "nucleus_16bit"]
    assert "holds 3 pages; the adapter `tiff` reads stacks" in images.reasons["fmd_bpae_stack3_f32"]
