"""Interface of denoisers for images of any type and size, and its implementation for trained networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

import torch
from torch import Tensor, nn

from pngmodel.bundle import read_bundle
from pngmodel.denoisers.registry import DenoiserConfig, build
from pngmodel.images import Image, from_unit, pad_to_multiple, to_unit
from pngmodel.network.model import Precision
from pngmodel.network.tiling import tiled

DENOISER_FORMAT = "pngnoise-denoiser"
_TILE, _OVERLAP = 512, 64  # pixels; the overlap exceeds the receptive field of DnCNN


class ImageDenoiser(ABC):
    """Removes noise from images. Images are processed one by one, so results do not depend on their batch."""

    name: str

    @abstractmethod
    def run(self, noisy: Tensor) -> Tensor:
        """Denoise images (B, C, H, W) in [0, 1]; return float32 on the CPU in [0, 1], not rounded."""

    def denoise(self, noisy: Image) -> Image:
        """Denoise an image; return it in the same dtype, layout, library and device.

        For supported images and errors see :func:`~pngmodel.images.to_unit`.
        """
        x, fmt = to_unit(noisy, "noisy")
        return from_unit(self.run(x), fmt)


class Denoiser(ImageDenoiser):
    """A denoiser with a trained network.

    Example:
        >>> from pngmodel.denoisers import Denoiser
        >>> clean = Denoiser.from_pretrained("runs/denoisers/real/seed-0/bundle").denoise(noisy)
    """

    def __init__(self, network: nn.Module, *, device: str = "cpu", name: str = "", digest: str | None = None) -> None:
        self._precision = Precision.best(device)
        moved = network.to(self._precision.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.network: nn.Module = moved.eval().requires_grad_(False)
        self.name, self.digest = name, digest

    @classmethod
    def from_pretrained(cls, path_or_url: str | Path, *, device: str = "cpu") -> Denoiser:
        """Load a bundle from `pngnoise train-denoiser`.

        Raises:
            UserError: This is not the bundle of a denoiser.
            IntegrityError: The bundle is damaged.
        """
        names: list[str] = []

        def build_network(model: object) -> nn.Module:
            config = DenoiserConfig.model_validate(model)
            names.append(config.name)
            return build(config)

        network, digest = read_bundle(path_or_url, DENOISER_FORMAT, build_network)
        return cls(network, device=device, name=names[0], digest=digest)

    @torch.no_grad()
    def run(self, noisy: Tensor) -> Tensor:
        """See :class:`ImageDenoiser`. Grey images are expanded to RGB, and images above 512 x 512 are tiled."""
        grey = noisy.shape[1] == 1
        padded = pad_to_multiple(noisy.float(), int(self.network.multiple))  # type: ignore[arg-type]
        padded = padded.expand(-1, 3, -1, -1) if grey else padded
        out = torch.stack([self._one(image) for image in padded])
        out = out.mean(dim=1, keepdim=True) if grey else out
        return out[..., : noisy.shape[-2], : noisy.shape[-1]].clamp(0, 1).cpu()

    def _one(self, image: Tensor) -> Tensor:
        """Denoise one image (3, H, W), in tiles if it is large."""

        def run(corners: list[tuple[int, int]], height: int, width: int) -> Tensor:
            return torch.stack([self._network(image[:, y : y + height, x : x + width]) for y, x in corners])

        return tiled(run, image.shape[-2], image.shape[-1], _TILE, _OVERLAP)

    def _network(self, image: Tensor) -> Tensor:
        moved = image[None].to(self._precision.device, memory_format=torch.channels_last)
        with self._precision.autocast():
            return self.network(moved)[0].float()
