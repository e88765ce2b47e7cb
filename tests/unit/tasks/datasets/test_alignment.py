"""Shifts against scikit-image, and no shift where there is nothing to see."""

from __future__ import annotations

import numpy as np
import pytest
from skimage import data
from skimage.registration import phase_cross_correlation

from tasks.datasets.alignment import align

SCENES = {"cat": data.chelsea, "coffee": data.coffee, "camera": data.camera, "coins": data.coins}


def scene(name: str) -> np.ndarray:
    image = np.asarray(SCENES[name]())
    return image[..., None] if image.ndim == 2 else image


def grainy(image: np.ndarray, strength: float, seed: int = 0) -> np.ndarray:
    noise = strength * np.random.default_rng(seed).standard_normal(image.shape)
    return (image + noise).round().clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("shift", [(3, 0), (0, -4), (11, 7), (-5, 9)])
@pytest.mark.parametrize("strength", [4, 15])
def test_shifts_are_those_of_scikit_image(name: str, shift: tuple[int, int], strength: float) -> None:
    image = scene(name)[:280, :300]
    y, x = 20, 20
    clean = image[y : y + 240, x : x + 256]
    moved = image[y - shift[0] : y - shift[0] + 240, x - shift[1] : x - shift[1] + 256]
    noisy = grainy(moved, strength)
    found = align(noisy, clean)
    grey = [side.astype(np.float64).mean(axis=-1) for side in (noisy, clean)]
    reference = phase_cross_correlation(*grey, normalization=None)[0]
    assert (found.dy, found.dx) == shift
    if strength == 4:  # brightness itself has a flatter peak than edges have
        assert np.abs(reference - shift).max() <= 1
    assert found.moved(2)
    assert not found.moved(20)


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("strength", [2, 15, 50])
@pytest.mark.parametrize("size", [32, 64, 240])
def test_pairs_that_lie_on_each_other_are_left_alone(name: str, strength: float, size: int) -> None:
    clean = scene(name)[20 : 20 + size, 20 : 20 + size]
    assert not align(grainy(clean, strength), clean).moved(2)


def test_another_brightness_scale_is_no_shift() -> None:
    clean = scene("cat")[:240, :240]
    assert not align(grainy(clean * 0.4 + 80, 6), clean).moved(2)


@pytest.mark.parametrize("size", [24, 32, 48, 64, 96, 256])
def test_noise_alone_says_nothing(size: int) -> None:
    """Where the scene is flat, edges are noise, and the best of many chance correlations must not count."""
    rng = np.random.default_rng(size)
    for _ in range(40 if size < 256 else 8):
        clean = (100 + rng.standard_normal((size, size, 3))).round().astype(np.uint8)
        noisy = (100 + 8 * rng.standard_normal((size, size, 3))).round().clip(0, 255).astype(np.uint8)
        assert not align(noisy, clean).moved(2)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 40, 1), (2, 2, 3), (3, 50, 3)])
def test_tiny_images_are_no_problem(shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 255, shape, np.uint8) for _ in range(2)]
    assert not align(*images).moved(2)
