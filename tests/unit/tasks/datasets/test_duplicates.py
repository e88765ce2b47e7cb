"""One shot stored twice is found; many shots of one scene are not."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from tasks.datasets.duplicates import FINGERPRINT_BYTES, fingerprint, near_duplicates


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


def shot(clean: np.ndarray, strength: float, seed: int) -> np.ndarray:
    noise = strength * np.random.default_rng(seed).standard_normal(clean.shape)
    return (clean + noise).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("change", ["saved again", "brighter", "deeper", "one side saved again"])
def test_one_shot_in_another_form_is_found(pair: Callable, change: str) -> None:
    clean = pair(0, 64, 64)[1]
    noisy = shot(clean, 6, 0)
    other = {
        "saved again": lambda: (jpeg(noisy, 95), jpeg(clean, 95)),
        "one side saved again": lambda: (jpeg(noisy, 95), clean),
        "brighter": lambda: ((noisy * 1.1).clip(0, 255).astype(np.uint8), (clean * 1.1).clip(0, 255).astype(np.uint8)),
        "deeper": lambda: (noisy.astype(np.uint16) * 257, clean.astype(np.uint16) * 257),
    }[change]()
    found = near_duplicates([fingerprint(noisy, clean), fingerprint(*other)])
    assert list(found) == [1]
    assert found[1][0] == 0
    assert 0.6 < found[1][1] <= 1.0001


@pytest.mark.parametrize("strength", [0.05, 0.2, 0.5, 1, 2, 4, 15])
@pytest.mark.parametrize("quality", [None, 75, 95])
@pytest.mark.parametrize("offset", [0, 2])
def test_shots_of_one_scene_are_no_duplicates(
    pair: Callable, strength: float, quality: int | None, offset: int
) -> None:
    """Down to noise that rounding and JPEG hide: what is left then repeats from shot to shot."""
    clean = pair(1, 64, 64)[1]
    shots = [shot(clean + offset, strength, seed) for seed in range(20)]
    truth = clean if quality is None else jpeg(clean, quality)
    shots = [s if quality is None else jpeg(s, quality) for s in shots]
    assert near_duplicates([fingerprint(s, truth) for s in shots]) == {}


def test_hot_pixels_that_every_shot_has_make_no_duplicates(pair: Callable) -> None:
    clean = np.full((64, 64, 3), 250, np.uint8)  # saturated but for a few
    clean[::7, ::9] = 200
    shots = []
    for seed in range(5):
        noisy = np.minimum(shot(clean, 1, seed), 250)
        noisy[30, 30] = noisy[35, 40] = 20
        shots.append(fingerprint(noisy, clean))
    assert near_duplicates(shots) == {}


def test_every_couple_is_compared_whatever_the_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.datasets.duplicates._BLOCK", 4)
    rng = np.random.default_rng(0)
    rows = [rng.integers(-127, 127, FINGERPRINT_BYTES).astype(np.int8) for _ in range(23)]
    for later, earlier in ((9, 1), (22, 3), (3, 2), (15, 14), (17, 1)):
        rows[later] = rows[earlier]
    rows[5] = rows[6] = np.zeros(FINGERPRINT_BYTES, np.int8)
    found = near_duplicates([r.tobytes() for r in rows])
    expected = {}
    for i in range(23):
        for j in range(i):
            a, b = rows[i].astype(float), rows[j].astype(float)
            if (
                a.any()
                and b.any()
                and a @ b / np.sqrt(a @ a * (b @ b)) > 0.7
                and i not in expected
                and j not in expected
            ):
                expected[i] = j
    assert {i: j for i, (j, _) in found.items()} == expected
    assert {9, 22, 3, 15, 17} - {22} <= set(found)


def test_images_that_are_too_small_or_flat_are_never_compared() -> None:
    small = np.random.default_rng(0).integers(0, 255, (20, 200, 3), np.uint8)
    flat = np.full((64, 64, 3), 9, np.uint8)
    prints = [fingerprint(small, small // 2), fingerprint(None, flat), fingerprint(flat, flat)] * 2
    assert set(prints) == {bytes(FINGERPRINT_BYTES)}
    assert near_duplicates(prints) == {}
    assert near_duplicates([]) == {}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_smooth_places_of_clean_images_are_no_duplicates(dtype: str) -> None:
    y, x = np.mgrid[:64, :64]
    scale = {"uint8": 1, "uint16": 257, "float32": 1 / 255}[dtype]
    prints = []
    for tilt, bend, offset in itertools.product((0.5, 1.7, 2), (0, 0.004, 0.0001 * x), (0, 7, 20.25)):
        grey = (40 + offset + tilt * x + bend * y * y) * scale
        image = np.stack([grey] * 3, -1)
        prints.append(fingerprint(None, (image.round() if scale >= 1 else image).astype(dtype)))
    assert near_duplicates(prints) == {}


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_a_clean_image_saved_again_is_found(pair: Callable, dtype: str) -> None:
    rng = np.random.default_rng(0)
    images = [np.clip(pair(k, 64, 64)[1] + rng.normal(0, 6, (64, 64, 1)), 0, 255).astype(np.uint8) for k in range(2)]
    copies = [*images, jpeg(images[1], 95)]
    scale = {"uint8": 1, "uint16": 257, "float32": 1 / 255}[dtype]
    found = near_duplicates([fingerprint(None, (copy * np.float64(scale)).astype(dtype)) for copy in copies])
    assert {later: earlier for later, (earlier, _) in found.items()} == {2: 1}
