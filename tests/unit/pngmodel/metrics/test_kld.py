"""KLD against numpy histograms in float64, and the trap of an exact zero on a bin edge."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from pngmodel.errors import UserError
from pngmodel.metrics import kld
from pngmodel.metrics.differences import integer_noise, is_8bit, to_8bit, unit_noise

NECA_EDGES = np.concatenate([[-1000.0], np.linspace(-0.1, 0.1, 65), [1000.0]])


def reference(p: np.ndarray, q: np.ndarray) -> float:
    p, q = p / p.sum(), q / q.sum()
    both = (p > 0) & (q > 0)
    return float(np.sum(p[both] * np.log(p[both] / q[both])))


def levels(image: torch.Tensor) -> np.ndarray:
    return np.rint(image.numpy() * np.float32(255)).astype(int)


def test_every_level_is_in_its_bin() -> None:
    d = torch.arange(-255, 256)
    # Exact edges: d / 255 is compared with k / 128 - 1 as d * 128 >= (k - 128) * 255.
    expected = [max(k for k in range(256) if x * 128 >= (k - 128) * 255) for x in d.tolist()]
    found = [int(kld.integer_histogram(x[None]).argmax()) for x in d]
    assert found == expected
    assert found[0] == 0
    assert found[255] == 128  # zero opens the upper half
    assert found[-1] == 255  # the upper edge belongs to the last bin
    assert kld.integer_histogram(d).tolist() == np.histogram(d.numpy() / 255, 256, (-1, 1))[0].tolist()


def test_unit_histogram_is_numpys() -> None:
    g = torch.Generator().manual_seed(0)
    noise = (torch.rand(50_000, generator=g) * 2 - 1).float()
    special = torch.tensor([-1, 1, 0, -0.0, -1e-9, 1e-9, 0.5, np.nextafter(np.float32(0.5), np.float32(0))])
    edges = torch.arange(-128, 129) / 128
    noise = torch.cat([noise, special.float(), edges])
    expected = np.histogram(noise.numpy().astype(np.float64), 256, (-1, 1))[0]
    assert kld.unit_histogram(noise).tolist() == expected.tolist()


def test_neca_bins_are_numpys() -> None:
    d = torch.arange(-255, 256)
    found = torch.stack([kld.neca_histogram(x[None]) for x in d]).argmax(1)
    expected = np.digitize(d.numpy() / 255, NECA_EDGES) - 1
    assert found.tolist() == expected.tolist()
    assert set(found[:229].tolist()) == {0}  # d = -26 is -.102


def test_three_definitions_against_float64_numpy(pair) -> None:
    real, clean = pair(1)
    generated = (clean + 0.05 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
    p, q = levels(real) - levels(clean), levels(generated) - levels(clean)
    rounded = reference(*(np.histogram(x / 255, 256, (-1, 1))[0] for x in (p, q)))
    neca = reference(*(np.histogram(x / 255, NECA_EDGES)[0] for x in (p, q)))
    unrounded = reference(*(np.histogram((x - clean).numpy(), 256, (-1, 1))[0] for x in (real, generated)))
    assert kld.kld_naflow_rounded(real, generated, clean) == pytest.approx(rounded, abs=1e-12)
    assert kld.kld_neca(real, generated, clean) == pytest.approx(neca, abs=1e-12)
    assert kld.kld_naflow(real, generated, clean) == pytest.approx(unrounded, abs=1e-9)
    # Frozen: these three must not drift, nor be taken for one another.
    assert rounded == pytest.approx(FROZEN[0], abs=1e-4)
    assert neca == pytest.approx(FROZEN[1], abs=1e-4)
    assert unrounded == pytest.approx(FROZEN[2], abs=1e-4)


def test_only_bins_filled_on_both_sides_count_and_nothing_is_renormalised() -> None:
    p, q = torch.tensor([4, 4, 0, 8]), torch.tensor([8, 0, 4, 4])
    assert kld.divergence(p, q) == pytest.approx(0.25 * np.log(0.5) + 0.5 * np.log(2))
    assert kld.divergence(p, p) == 0


def test_masked_bins_make_a_noise_free_image_negative(pair) -> None:
    """A consequence of the published definition: what the generator never makes costs nothing."""
    real, clean = pair(2)
    share = float((integer_noise(real, clean) // 2 == 0).double().mean())  # levels 0 and 1 share a bin
    assert kld.kld_naflow_rounded(real, clean, clean) == pytest.approx(share * np.log(share))
    assert -1 / np.e <= share * np.log(share) < 0


def test_direction_is_real_to_generated(pair) -> None:
    real, clean = pair(2)
    weak = clean + 0.5 * (real - clean)
    strong = kld.kld_naflow_rounded(real, weak, clean)
    assert strong != pytest.approx(kld.kld_naflow_rounded(weak, real, clean), rel=0.05)


def test_zero_on_the_edge_is_safe_in_mixed_precision(pair) -> None:
    """The trap: the same image read as float32 on one side and as float64 on the other."""
    real, clean = pair(3)
    wide, wide_clean = (torch.from_numpy(levels(x) / 255.0) for x in (real, clean))
    # What goes wrong without care: k/255 always rounds up in float32 (its bits repeat, beginning with a one),
    # so every exact zero falls below the edge.
    naive = (wide - clean.double()).numpy()
    careless = reference(*(np.histogram(x, 256, (-1, 1))[0] for x in ((wide - wide_clean).numpy(), naive)))
    assert careless > 0.01
    for function in (kld.kld_naflow, kld.kld_naflow_rounded, kld.kld_neca):
        assert function(real, wide, clean) == 0
        assert function(real, wide, wide_clean) == 0
        assert function(wide, real, clean) == 0


def test_perfect_generator(pair) -> None:
    (real, clean), (other, _) = pair(4, size=256), pair(4, size=256, repeat=1)
    assert kld.kld_naflow_rounded(real, other, clean) < 6e-4
    dithered = other + (torch.rand(other.shape, generator=torch.Generator().manual_seed(0)) - 0.5) / 255
    assert kld.kld_naflow_rounded(real, dithered, clean) < 6e-4
    # Unrounded, perfection has a price.
    assert kld.kld_naflow(real, dithered, clean) > 5 * kld.kld_naflow_rounded(real, dithered, clean)


def test_generated_is_clamped_first(pair) -> None:
    real, clean = pair(5)
    wild = clean + 20 * (real - clean)
    for function in (kld.kld_naflow, kld.kld_naflow_rounded, kld.kld_neca):
        assert function(real, wild, clean) == function(real, wild.clamp(0, 1), clean)


def test_differences() -> None:
    image = torch.tensor([[[0.0, 1.0, 0.5, -0.2, 1.3, 100.4 / 255]]])
    assert to_8bit(image).flatten().tolist() == [0, 255, 128, 0, 255, 100]
    assert integer_noise(image, torch.zeros_like(image)).max() == 255
    assert unit_noise(image, torch.zeros_like(image)).dtype == torch.float32
    assert not is_8bit(image)
    assert is_8bit(torch.arange(256) / 255)


def test_refuses_shapes_that_differ_or_are_too_small() -> None:
    big, small = torch.zeros(3, 32, 32), torch.zeros(3, 32, 8)
    with pytest.raises(UserError, match=r"generated has shape \(1, 32, 32\)"):
        kld.kld_naflow(big, big[:1], big)
    with pytest.raises(UserError, match="16 x 16"):
        kld.kld_neca(small, small, small)
    with pytest.raises(UserError, match=r"expected \(C, H, W\)"):
        kld.kld_naflow_rounded(big[None], big[None], big[None])


FROZEN = (0.00616, 0.00427, 0.01478)  # rounded, NeCA, unrounded
