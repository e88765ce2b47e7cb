"""Levels of patches against NumPy in float64, exact sums, pooling."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from tasks.datasets import patch_statistics as levels

shapes = st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 9))
pairs = st.tuples(st.sampled_from(["uint8", "uint16"]), shapes).flatmap(
    lambda k: st.tuples(hnp.arrays(np.dtype(k[0]), k[1]), hnp.arrays(np.dtype(k[0]), k[1]))
)


@settings(deadline=None)
@given(pairs)
def test_integers_agree_with_float64(images: tuple[np.ndarray, np.ndarray]) -> None:
    clean, noisy = images
    peak = np.iinfo(clean.dtype).max
    columns, sums = levels.measure({"clean": clean, "noisy": noisy}, peak)
    noise = noisy.astype(np.float64) - clean
    np.testing.assert_allclose(columns["clean_mean"], clean.mean((1, 2)) / peak, atol=1e-12)
    np.testing.assert_allclose(columns["noise_mean"], noise.mean((1, 2)) / peak, atol=1e-12)
    np.testing.assert_allclose(columns["noise_std"], noise.std((1, 2)) / peak, atol=1e-9)
    assert columns["saturated"] == pytest.approx(((noisy == 0) | (noisy == peak)).mean())
    exact = noisy.astype(object) - clean.astype(object)
    assert sums["noise"]["sum"] == [int(channel.sum()) for channel in exact]
    assert sums["noise"]["squares"] == [int((channel**2).sum()) for channel in exact]
    json.dumps(sums)


def test_the_largest_sums_are_exact() -> None:
    clean, noisy = np.zeros((1, 512, 512), np.uint16), np.full((1, 512, 512), 65535, np.uint16)
    sums = levels.measure({"clean": clean, "noisy": noisy}, 65535)[1]
    assert sums["noise"] == {"sum": [65535 * 512**2], "squares": [65535**2 * 512**2]}
    white = np.full((1, 300, 300), 255, np.uint8)
    assert levels.measure({"noisy": white}, 255)[1]["image"] == {"sum": [255 * 90000], "squares": [255**2 * 90000]}


def test_floats_are_fractions_of_their_full_scale() -> None:
    rng = np.random.default_rng(0)
    clean = (1000 * rng.random((2, 40, 50))).astype(np.float32)
    noisy = clean + rng.normal(0, 30, clean.shape).astype(np.float32)
    columns, _ = levels.measure({"clean": clean, "noisy": noisy}, 1000.0)
    noise = (noisy.astype(np.float64) - clean) / 1000
    np.testing.assert_allclose(columns["noise_std"], noise.std((1, 2)), rtol=1e-9)
    np.testing.assert_allclose(columns["clean_mean"], clean.astype(np.float64).mean((1, 2)) / 1000, rtol=1e-9)
    assert columns["saturated"] == pytest.approx(((noisy <= 0) | (noisy >= 1000)).mean())


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_pooled_figures_are_those_of_all_pixels_in_any_order(dtype: str) -> None:
    rng = np.random.default_rng(1)
    peak = 1.0 if dtype == "float32" else float(np.iinfo(dtype).max)
    stack = (rng.random((6, 3, 16, 16)) * peak).astype(dtype)
    sums = [levels.measure({"noisy": image}, peak)[1] for image in stack]
    found = levels.pooled(levels.add(sums), dtype)
    values = stack.astype(np.float64).transpose(1, 0, 2, 3).reshape(3, -1) / peak
    np.testing.assert_allclose(found["levels"]["image"]["mean"], values.mean(1), rtol=1e-9)
    np.testing.assert_allclose(found["levels"]["image"]["std"], values.std(1), rtol=1e-9)
    if dtype != "float32":
        for order in itertools.islice(itertools.permutations(sums), 0, 720, 97):
            assert levels.pooled(levels.add(order), dtype) == found
    rest = levels.add([levels.add(sums[:2]), levels.add(sums[2:])])
    assert levels.pooled(rest, dtype)["levels"]["image"]["mean"] == pytest.approx(found["levels"]["image"]["mean"])
