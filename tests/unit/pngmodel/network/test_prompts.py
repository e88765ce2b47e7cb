"""Prompt blocks: compact codes of fixed size, maps of any size, nothing learned before training."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from pngmodel.network.presets import ModelConfig
from pngmodel.network.prompts import GlobalPromptBlock, LocalPromptBlock, fit_map


def test_map_at_its_own_size_is_itself_and_continues_periodically() -> None:
    m = torch.arange(2 * 4 * 6, dtype=torch.float32).reshape(2, 4, 6)
    assert torch.equal(fit_map(m, 4, 6), m)
    larger = fit_map(m, 10, 13)
    assert larger.shape == (2, 10, 13)
    for y, x in [(0, 0), (3, 5), (4, 6), (9, 12), (7, 2)]:
        assert torch.equal(larger[:, y, x], m[:, y % 4, x % 6])
    assert torch.equal(fit_map(m, 2, 3), m[:, :2, :3])


def test_global_weights_are_a_softmax_over_channels_of_mean_and_std() -> None:
    torch.manual_seed(0)
    block = GlobalPromptBlock(5, 8)
    features = torch.randn(2, 5, 8, 12)
    weights = block.summarise(features)
    x = features.double().flatten(2)
    statistics = torch.cat([x.mean(2), x.std(2, correction=0)], 1)
    linear = block.weigh.weight.double().flatten(1)
    expected = torch.softmax(statistics @ linear.T + block.weigh.bias.double(), 1)
    torch.testing.assert_close(weights.double(), expected, atol=1e-6, rtol=1e-5)


def test_global_weights_ignore_where_things_are() -> None:
    torch.manual_seed(0)
    block = GlobalPromptBlock(5, 8)
    features = torch.randn(1, 5, 8, 8)
    torch.testing.assert_close(block.summarise(features), block.summarise(features.flip(2, 3)))


def test_global_prompt_starts_as_a_constant_and_its_map_can_learn() -> None:
    torch.manual_seed(0)
    block = GlobalPromptBlock(4, 8)
    weights = torch.softmax(torch.randn(2, 4), 1)
    out = block.expand(weights, 8, 8)
    torch.testing.assert_close(out, block.mix.bias.detach()[None, :, None, None].expand(2, -1, 8, 8))
    out.square().sum().backward()
    assert float(block.map.grad.abs().max()) > 0


@pytest.mark.parametrize("size", [(16, 16), (24, 40), (64, 16)])
def test_local_profiles_do_not_depend_on_the_image_size(
    smallest: Callable[..., ModelConfig], correlated, size: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    block = LocalPromptBlock(smallest())
    profiles = block.summarise(correlated(*size)[None])
    assert profiles.shape == (1, 2, 25, 4)
    assert float(profiles.abs().max()) <= 1 + 1e-6
    assert block.expand(profiles, 32, 48).shape == (1, 4, 32, 48)


def test_local_profiles_are_the_means_over_columns_and_rows(smallest: Callable[..., ModelConfig]) -> None:
    # Left half smooth along x, right half white: only the column profile may tell them apart.
    g = torch.Generator().manual_seed(3)
    noise = torch.randn(1, 3, 64, 64, generator=g)
    noise[..., :32] = torch.randn(1, 3, 64, 16, generator=g).repeat_interleave(2, dim=3)
    profiles = LocalPromptBlock(smallest()).summarise(noise)
    right_neighbour = 2 * 5 + 3
    rows, columns = profiles[0, 0, right_neighbour], profiles[0, 1, right_neighbour]
    assert float(columns[0]) > 0.3 > 0.15 > float(columns[-1])
    assert float(rows.max() - rows.min()) < 0.15


def test_local_prompt_starts_as_a_constant_and_reacts_once_awake(
    smallest: Callable[..., ModelConfig], awake, correlated
) -> None:
    torch.manual_seed(0)
    block = LocalPromptBlock(smallest())
    soft, white = correlated(32, 32)[None], torch.randn(1, 3, 32, 32)
    first, second = (block.expand(block.summarise(n), 16, 16) for n in (soft, white))
    torch.testing.assert_close(first, second)
    awake(block, size=0.5)
    first, second = (block.expand(block.summarise(n), 16, 16) for n in (soft, white))
    assert float((first - second).detach().abs().max()) > 1e-3
