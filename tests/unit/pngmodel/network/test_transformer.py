"""P-DiT: what is zero at the start, what the conditions reach, which sizes it takes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from pngmodel.network.autoencoder import PromptEncoder
from pngmodel.network.presets import ModelConfig
from pngmodel.network.transformer import FCond, PromptAttention, PromptDiT, grid_positions, sinusoidal


def inputs(
    config: ModelConfig, rows: int = 4, columns: int = 4, batch: int = 2
) -> tuple[Tensor, Tensor, list[Tensor], Tensor]:
    g = torch.Generator().manual_seed(0)
    height, width = rows * 8, columns * 8
    prompts = []
    for level, channels in enumerate(config.channels):
        count = 0 if config.prompts == "none" else 1 + (level == 0 and config.prompts == "global+local")
        prompts += [torch.randn(batch, channels, height >> level, width >> level, generator=g) for _ in range(count)]
    x = torch.randn(batch, config.latent_channels, rows, columns, generator=g)
    clean = torch.rand(batch, 3, height, width, generator=g) * 2 - 1
    return x, torch.linspace(-1.5, 1.0, batch), prompts, clean


def test_output_is_zero_at_the_start_and_the_head_learns_first(smallest: Callable[..., ModelConfig]) -> None:
    torch.manual_seed(0)
    config = smallest()
    network = PromptDiT(config)
    out = network(*inputs(config))
    assert torch.equal(out, torch.zeros_like(out))
    (out - 1).square().sum().backward()
    assert float(network.head.weight.grad.abs().max()) > 0


@pytest.mark.parametrize("prompts", ["none", "global", "global+local"])
@pytest.mark.parametrize("kernel", [1, 3])
def test_prompt_variants_and_sizes(smallest: Callable[..., ModelConfig], awake, prompts: str, kernel: int) -> None:
    config = smallest(prompts=prompts, condition_kernel=kernel)
    network = awake(PromptDiT(config)).eval()
    for rows, columns in [(4, 4), (2, 7), (1, 1)]:
        x, level, features, clean = inputs(config, rows, columns)
        out = network(x, level, features, clean)
        assert out.shape == x.shape
        assert bool(torch.isfinite(out).all())


def test_prompt_features_of_the_encoder_fit(smallest: Callable[..., ModelConfig], awake) -> None:
    config = smallest()
    encoder, network = awake(PromptEncoder(config)), awake(PromptDiT(config)).eval()
    x, level, _, clean = inputs(config, 3, 5)
    code = encoder.prompts(torch.randn(2, 3, 16, 16))
    assert network(x, level, encoder.expand(code, 24, 40), clean).shape == x.shape


def test_prompt_attention_starts_as_plain_attention(smallest: Callable[..., ModelConfig]) -> None:
    torch.manual_seed(0)
    attention = PromptAttention(smallest()).eval()
    x, condition = torch.randn(2, 9, 24), torch.randn(2, 9, 24)
    before = attention(x, FCond(condition))
    torch.testing.assert_close(before, attention(x, FCond(torch.zeros_like(condition))))
    before.square().sum().backward()
    assert float(attention.prompt_qkv.weight.grad.abs().max()) > 0
    torch.nn.init.normal_(attention.prompt_qkv.weight, std=0.3)
    assert float((attention(x, FCond(condition)) - before).detach().abs().max()) > 1e-3


@pytest.mark.parametrize("condition", ["time", "attention"])
@pytest.mark.parametrize("statistics", ["none", "correlation"])
def test_a_reference_shared_by_many_images_is_the_same_in_parts(
    smallest: Callable[..., ModelConfig], awake, condition: str, statistics: str
) -> None:
    config = smallest(condition=condition, statistics=statistics)
    network = awake(PromptDiT(config)).eval()
    x, level, prompts, clean = inputs(config, batch=3)
    prompts = [features[:1] for features in prompts]
    told = None if statistics == "none" else torch.randn(1, 63, generator=torch.Generator().manual_seed(2))
    parts = network.condition(prompts, clean, told)
    assert parts.own is not None
    assert parts.shared.shape[0] == 1
    repeated = [features.expand(3, -1, -1, -1) for features in prompts]
    told_each = None if told is None else told.expand(3, -1)
    whole = network.condition(repeated, clean, told_each)
    torch.testing.assert_close(torch.cat([parts.shared.expand(3, -1, -1), parts.own], dim=2), whole.shared)
    torch.testing.assert_close(parts.mean(), whole.mean())
    expected = network(x, level, repeated, clean, told_each)
    torch.testing.assert_close(network(x, level, prompts, clean, told), expected, atol=1e-5, rtol=1e-4)


def test_attention_equals_the_equation(smallest: Callable[..., ModelConfig], awake) -> None:
    attention = awake(PromptAttention(smallest())).eval()
    g = torch.Generator().manual_seed(1)
    x, condition = torch.randn(1, 7, 24, generator=g), torch.randn(1, 7, 24, generator=g)
    with torch.no_grad():
        found = attention(x, FCond(condition))[0].double().numpy()
        qkv = (attention.qkv(x) + attention.prompt_qkv(condition))[0].double().numpy()
    heads = []
    for h in range(2):
        q, k, v = (qkv[:, part * 24 + h * 12 : part * 24 + (h + 1) * 12] for part in range(3))
        q = q / np.linalg.norm(q, axis=1, keepdims=True) * np.exp(float(attention.log_scale[h].detach()))
        k = k / np.linalg.norm(k, axis=1, keepdims=True)
        weights = np.exp(q @ k.T)
        heads.append(weights / weights.sum(1, keepdims=True) @ v)
    out = np.concatenate(heads, 1) @ attention.out.weight.detach().double().numpy().T
    np.testing.assert_allclose(found, out + attention.out.bias.detach().double().numpy(), atol=1e-5)


def test_time_condition_has_no_prompt_attention_but_still_reads_the_prompts(
    smallest: Callable[..., ModelConfig], awake
) -> None:
    config = smallest(condition="time")
    network = awake(PromptDiT(config)).eval()
    assert not any("prompt_qkv" in name for name, _ in network.named_parameters())
    x, level, prompts, clean = inputs(config)
    other = [p + 1 for p in prompts]
    assert float((network(x, level, prompts, clean) - network(x, level, other, clean)).detach().abs().max()) > 1e-3
    assert any("prompt_qkv" in name for name, _ in PromptDiT(smallest()).named_parameters())


@pytest.mark.parametrize("which", range(4))
def test_every_input_reaches_the_output(smallest: Callable[..., ModelConfig], awake, which: int) -> None:
    config = smallest()
    network = awake(PromptDiT(config)).eval()
    values = list(inputs(config))
    before = network(*values)
    values[which] = [p + 0.5 for p in values[which]] if which == 2 else values[which] + 0.5
    assert float((network(*values) - before).abs().max()) > 1e-3


def test_tokens_attend_to_each_other_and_know_their_place(smallest: Callable[..., ModelConfig], awake) -> None:
    config = smallest()
    network = awake(PromptDiT(config), size=0.3).eval()
    x, level, prompts, clean = inputs(config)
    flat = [torch.zeros_like(p) for p in prompts]
    before = network(x, level, flat, torch.zeros_like(clean))
    moved = x.clone()
    moved[..., 0, 0] += 3
    after = network(moved, level, flat, torch.zeros_like(clean))
    assert float((after - before)[..., 3, 3].abs().max()) > 1e-5
    same = torch.ones_like(x)
    out = network(same, level, flat, torch.zeros_like(clean))
    assert float((out[..., 0, 0] - out[..., 2, 1]).abs().max()) > 1e-4


def test_images_of_a_batch_do_not_mix(smallest: Callable[..., ModelConfig], awake) -> None:
    config = smallest()
    network = awake(PromptDiT(config)).eval()
    x, level, prompts, clean = inputs(config)
    alone = network(x[1:], level[1:], [p[1:] for p in prompts], clean[1:])
    torch.testing.assert_close(network(x, level, prompts, clean)[1:], alone, atol=1e-5, rtol=1e-4)


def test_positions_are_distinct_and_rows_lie_before_columns() -> None:
    positions = grid_positions(5, 7, 24, torch.device("cpu"))
    assert positions.shape == (35, 24)
    distances = torch.cdist(positions, positions) + 10 * torch.eye(35)
    assert float(distances.min()) > 0.1
    torch.testing.assert_close(positions[0, :12], positions[6, :12])  # one row
    torch.testing.assert_close(positions[1, 12:], positions[1 + 7, 12:])  # one column


def test_sinusoids_separate_neighbouring_noise_levels() -> None:
    sigma = torch.linspace(0.002 ** (1 / 7), 80 ** (1 / 7), 161, dtype=torch.float64) ** 7
    features = sinusoidal(1000 * sigma.log().float() / 4, 256)
    assert features.shape == (161, 256)
    neighbours = (features[1:] - features[:-1]).norm(dim=1)
    assert float(neighbours.min()) > 0.5
    assert float(features.abs().max()) <= 1


def test_dropout_is_drawn_in_training_only(smallest: Callable[..., ModelConfig], awake) -> None:
    config = smallest(dropout=0.3)
    network = awake(PromptDiT(config), size=0.3)
    values = inputs(config)
    network.eval()
    assert torch.equal(network(*values), network(*values))
    network.train()
    torch.manual_seed(1)
    first = network(*values)
    torch.manual_seed(1)
    assert torch.equal(first, network(*values))
    assert not torch.equal(first, network(*values))


def test_dropout_mask_is_the_same_with_and_without_gradient(smallest: Callable[..., ModelConfig], awake) -> None:
    # The consistency teacher runs without gradient and must see the student's mask.
    config = smallest(dropout=0.3)
    network = awake(PromptDiT(config), size=0.3).train()
    values = inputs(config)
    torch.manual_seed(1)
    student = network(*values)
    torch.manual_seed(1)
    with torch.no_grad():
        teacher = network(*values)
    torch.testing.assert_close(student, teacher)
