"""Denoisers: published sizes, what they compute, and the face over them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn
from torch.nn import functional as F

from pngmodel.bundle import write_bundle
from pngmodel.denoisers import DENOISER_FORMAT, DENOISERS, Denoiser, DenoiserConfig, ImageDenoiser, build
from pngmodel.denoisers.nafnet import NAFBlock
from pngmodel.denoisers.restormer import BiasFreeNorm, ChannelAttention
from pngmodel.errors import UserError

SMALL = {
    "dncnn": {"depth": 4, "width": 8},
    "nafnet": {"width": 4, "encoder": (1, 1), "middle": 1, "decoder": (1, 1)},
    "restormer": {"width": 8, "blocks": (1, 1, 1, 1), "refinement": 1, "heads": (1, 1, 2, 2)},
}


def small(name: str) -> nn.Module:
    torch.manual_seed(1)
    network = build(DenoiserConfig(name=name, settings=SMALL[name])).eval()
    with torch.no_grad():  # those that start as the identity would hide every mistake
        for parameter in network.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return network


@pytest.mark.parametrize(
    ("name", "settings", "published"),
    [
        ("dncnn", {}, 0.67e6),
        ("nafnet", {"width": 32}, 29.16e6),
        ("nafnet", {"width": 64}, 115.98e6),
        ("restormer", {}, 26.13e6),
    ],
)
def test_published_numbers_of_parameters(name: str, settings: dict, published: float) -> None:
    with torch.device("meta"):
        network = build(DenoiserConfig(name=name, settings=settings))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(published, rel=0.01)


@pytest.mark.parametrize("name", DENOISERS)
def test_an_image_goes_in_and_one_comes_out(name: str) -> None:
    network = small(name)
    noisy = torch.rand(2, 3, 32, 40)
    with torch.no_grad():
        out = network(noisy)
    assert out.shape == noisy.shape
    assert not torch.equal(out, noisy)
    assert all(32 % side == 0 for side in [int(network.multiple)])


@pytest.mark.parametrize("name", DENOISERS)
def test_every_parameter_is_trained(name: str) -> None:
    network = small(name).train()
    network(torch.rand(2, 3, 32, 32)).square().mean().backward()
    assert [n for n, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_dncnn_starts_as_the_identity_and_takes_the_noise_off() -> None:
    network = build(DenoiserConfig(name="dncnn", settings=SMALL["dncnn"])).eval()
    noisy = torch.rand(1, 3, 16, 16)
    assert torch.equal(network(noisy), noisy)
    nn.init.constant_(network.noise[-1].bias, 0.25)
    torch.testing.assert_close(network(noisy), noisy - 0.25)


def test_a_nafnet_block_is_what_the_publication_says() -> None:
    """Written out for one pixel at a time in float64."""
    torch.manual_seed(0)
    block = NAFBlock(4).double()
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter))
    x = torch.randn(1, 4, 5, 6, dtype=torch.float64)

    def norm(v: Tensor, layer: nn.Module) -> Tensor:
        mean, std = v.mean(1, keepdim=True), v.var(1, keepdim=True, correction=0).add(1e-5).sqrt()
        return (v - mean) / std * layer.weight[:, None, None] + layer.bias[:, None, None]

    y = F.conv2d(norm(x, block.norm1), block.widen.weight, block.widen.bias)
    y = F.conv2d(y, block.depthwise.weight, block.depthwise.bias, padding=1, groups=8)
    y = y[:, :4] * y[:, 4:]
    pooled = y.sum((2, 3)) / 30
    y = y * (pooled @ block.attention.weight[:, :, 0, 0].T + block.attention.bias)[:, :, None, None]
    y = x + block.scale1 * F.conv2d(y, block.project.weight, block.project.bias)
    z = F.conv2d(norm(y, block.norm2), block.gated_in.weight, block.gated_in.bias)
    expected = y + block.scale2 * F.conv2d(z[:, :4] * z[:, 4:], block.gated_out.weight, block.gated_out.bias)
    torch.testing.assert_close(block(x), expected)


def test_restormers_attention_is_between_channels() -> None:
    torch.manual_seed(0)
    layer = ChannelAttention(4, heads=2).double()
    x = torch.randn(1, 4, 3, 5, dtype=torch.float64)
    q, k, v = (part.flatten(2)[0].detach().numpy() for part in layer.qkv(x).chunk(3, dim=1))
    out = np.empty((4, 15))
    for head in range(2):
        rows = slice(2 * head, 2 * head + 2)
        scores = np.array([[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in k[rows]] for a in q[rows]]) * float(
            layer.temperature[head].detach()
        )
        weights = np.exp(scores) / np.exp(scores).sum(1, keepdims=True)
        out[rows] = weights @ v[rows]
    expected = F.conv2d(torch.from_numpy(out).reshape(1, 4, 3, 5), layer.project.weight)
    torch.testing.assert_close(layer(x), expected)


def test_the_norm_without_bias_keeps_a_constant_in() -> None:
    x = torch.randn(1, 8, 2, 2)
    shifted = BiasFreeNorm(8)(x + 3)
    torch.testing.assert_close(shifted, (x + 3) / (x.var(1, keepdim=True, correction=0) + 1e-5).sqrt())


@pytest.mark.parametrize("name", DENOISERS)
def test_any_size_any_batch_the_same_answer(name: str) -> None:
    denoiser = Denoiser(small(name))
    images = torch.rand(3, 3, 37, 50)
    together = denoiser.run(images)
    assert together.shape == images.shape
    assert together.min() >= 0
    assert together.max() <= 1
    for image, found in zip(images, together, strict=True):
        assert torch.equal(denoiser.run(image[None])[0], found)


def test_large_images_are_worked_off_in_tiles_without_seams() -> None:
    denoiser = Denoiser(small("dncnn"))
    image = torch.rand(1, 3, 600, 520)
    with torch.no_grad(), denoiser._precision.autocast():
        whole = denoiser.network(image).float().clamp(0, 1)
    torch.testing.assert_close(denoiser.run(image), whole, atol=2e-3, rtol=0)


def test_the_answer_has_the_callers_form() -> None:
    denoiser = Denoiser(small("nafnet"))
    for image in (
        np.full((20, 24, 3), 100, np.uint8),
        np.full((20, 24), 40_000, np.uint16),
        torch.full((2, 3, 16, 16), 0.5),
    ):
        found = denoiser.denoise(image)
        assert (type(found), found.shape, found.dtype) == (type(image), image.shape, image.dtype)
    assert isinstance(denoiser, ImageDenoiser)


def test_bundles(tmp_path: Path) -> None:
    network = small("dncnn")
    network.train()
    network(torch.rand(4, 3, 16, 16))  # running statistics are part of the model
    model = {"name": "dncnn", "settings": SMALL["dncnn"]}
    digest = write_bundle(network, tmp_path / "b", kind=DENOISER_FORMAT, model=model, training={}, card="")
    loaded = Denoiser.from_pretrained(tmp_path / "b")
    assert (loaded.name, loaded.digest) == ("dncnn", digest)
    for key, value in network.state_dict().items():
        assert torch.equal(loaded.network.state_dict()[key], value), key
    write_bundle(network, tmp_path / "c", kind="pngnoise-model", model=model, training={}, card="")
    with pytest.raises(UserError, match="expected 'pngnoise-denoiser' version 1"):
        Denoiser.from_pretrained(tmp_path / "c")


def test_what_is_no_denoiser() -> None:
    with pytest.raises(UserError, match="denoiser 'unet' does not exist; choose one of dncnn, nafnet, restormer"):
        build(DenoiserConfig(name="unet"))
    with pytest.raises(ValidationError, match="must have the same number of levels"):
        build(DenoiserConfig(name="nafnet", settings={"encoder": (1, 1), "decoder": (1,)}))
