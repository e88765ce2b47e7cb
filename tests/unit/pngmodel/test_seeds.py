"""Seeds: pure functions of their parts, distinct, equal on every machine."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch

from pngmodel.seeds import derive_seed, generator


def test_values_never_change() -> None:
    # Stored corpora depend on these: another value here is another corpus.
    assert derive_seed(0) == 1887154467326967967
    assert derive_seed("batch", 0, 1) == 2697438777554416242


def test_equal_in_another_process_with_other_hashing() -> None:
    code = "from pngmodel.seeds import derive_seed; print(derive_seed('a', 7))"
    made = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONHASHSEED": "77", "PYTHONPATH": "."},
    )
    assert int(made.stdout) == derive_seed("a", 7)


def test_parts_are_not_run_together() -> None:
    parts: list[tuple[int | str, ...]] = [
        (1, 23),
        (12, 3),
        (123,),
        ("1", 23),
        ("12", "3"),
        ("a", "bc"),
        ("ab", "c"),
        (),
        (0,),
        (-1,),
    ]
    assert len({derive_seed(*p) for p in parts}) == len(parts)


def test_range_and_spread() -> None:
    seeds = np.array([derive_seed(0, k) for k in range(4000)], dtype=np.float64) / 2**63
    assert seeds.min() >= 0
    assert seeds.max() < 1
    # Uniform: mean 1/2, std 1/sqrt(12); 4000 draws have a standard error of .0046.
    assert seeds.mean() == pytest.approx(0.5, abs=0.02)
    assert seeds.std() == pytest.approx(12**-0.5, abs=0.02)


def test_numpy_and_torch_integers_count_as_their_value() -> None:
    assert derive_seed(np.int64(5), np.uint8(3)) == derive_seed(5, 3)
    assert derive_seed(torch.tensor(5)) == derive_seed(5)


def test_fractions_are_refused() -> None:
    with pytest.raises(TypeError):
        derive_seed(0.5)  # type: ignore[arg-type]


def test_generators_repeat_and_differ() -> None:
    a, b, c = (torch.randn(8, generator=generator(*p)) for p in (("x", 1), ("x", 1), ("x", 2)))
    assert torch.equal(a, b)
    assert not torch.equal(a, c)
    assert generator("x", 1).device.type == "cpu"
