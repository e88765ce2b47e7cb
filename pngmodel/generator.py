"""NoiseGenerator: public API of the learned noise model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pngmodel.bundle import SHIPPED, load_bundle
from pngmodel.errors import UserError
from pngmodel.images import pad_to_multiple
from pngmodel.interface import NoisyImageGenerator, Prompts
from pngmodel.network.consistency import one_step
from pngmodel.network.model import NoiseModel, Precision
from pngmodel.network.presets import DOWNSAMPLING, LEVELS
from pngmodel.network.tiling import tiled
from pngmodel.seeds import derive_seed, generator
from pngmodel.statistics.units import CALIBRATION, COVARIANCE, NoiseUnits

_COLOURS = 3
_TILES_PER_CALL = 32  # limit for small tiles, which are batched to reduce the overhead per call
_PIXELS_PER_CALL = 16 * 256**2  # limit for large tiles, to bound the memory of full-size features
_PIXELS_ON_ACCELERATOR = 16 * 256**2  # pixels of the images that share network calls
_CALIBRATION_SIDE = 256  # pixels
_CALIBRATION_SAMPLES = 3  # averages the estimated covariances of the model over several samples


class NoiseGenerator(NoisyImageGenerator):
    """Generates noise with the statistics of a reference on any clean image, in one network evaluation.

    Example:
        >>> from pngmodel import NoiseGenerator
        >>> generator = NoiseGenerator.from_pretrained()
        >>> noisy = generator.generate(clean, reference=(real_noisy, real_clean), seed=1)

    On a CPU every network call processes the tiles of one image. On an accelerator images share calls of a fixed batch
    size, so that a sample depends on its batch only if the matrix products of the device do.

    Source: PNG, CVPR 2026, arXiv 2603.04870.
    """

    name = "png"

    def __init__(self, model: NoiseModel, *, device: str = "cpu", digest: str | None = None) -> None:
        self._precision = Precision.best(device)
        self.model = model.to(self._precision.device).eval().requires_grad_(False)
        self._fast = self._precision.weights_kept(self.model)
        self.digest = digest

        config = model.config
        names = [f"global_{level}" for level in range(LEVELS)] if config.prompts != "none" else []
        names += ["local"] if config.prompts == "global+local" else []
        names += ["statistics"] if config.statistics != "none" else []
        names += CALIBRATION if config.calibration == "spectrum" else ()
        self._units = NoiseUnits(config)
        self._prompt_names = self._units.names.union(names)

    @classmethod
    def from_pretrained(cls, path_or_url: str | Path | None = None, *, device: str = "cpu") -> NoiseGenerator:
        """Load a model bundle.

        Args:
            path_or_url: Local path, ``file://`` or ``http(s)://`` URL of the folder; default: the shipped model. Object
                storage is supported by the command line only.
            device: cpu, cuda or cuda:N.

        Raises:
            UserError: This is not a bundle, or its format version is not supported.
            IntegrityError: The bundle is damaged.
        """
        model, digest = load_bundle(path_or_url or SHIPPED)
        return cls(model, device=device, digest=digest)

    def uncalibrated(self) -> NoiseGenerator:
        """Return a generator with the same network, without calibration of its samples."""
        model = copy.copy(self.model)
        model.config = model.config.model_copy(update={"calibration": "none"})
        return NoiseGenerator(model, device=str(self._precision.device), digest=self.digest)

    @torch.no_grad()
    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Return the prompts of a reference pair (C, H, W) in [0, 1]: codes of the encoder and whitening curves.

        Raises:
            UserError: The reference is smaller than 16 x 16 pixels.
        """
        if min(noisy.shape[-2:]) < 2 * DOWNSAMPLING:
            height, width = noisy.shape[-2:]
            raise UserError(f"reference: {height} x {width} pixels is too small; use at least 16 x 16")
        noisy, clean = _as_rgb(noisy.cpu()), _as_rgb(clean.cpu())
        noise, fitted = self._units.fit(noisy, clean)
        with self._precision.autocast():
            code = self._fast.autoencoder.encoder.prompts(noise[None].to(self._precision.device))
        prompts = {name: value[0].float().cpu() for name, value in code.items()} | fitted
        if self.model.config.calibration == "spectrum":
            height, width = (min(side, _CALIBRATION_SIDE) for side in noise.shape[-2:])
            clean = clean[:, :height, :width]
            batch = clean[None].to(self._precision.device)
            seeds = [derive_seed("calibration", k) for k in range(_CALIBRATION_SAMPLES)]
            samples = [self._units.coloured(self._model_noise(batch, [prompts], [s])[0].cpu(), prompts) for s in seeds]
            prompts |= self._units.calibration(samples, noisy[:, :height, :width] - clean, clean, prompts)
        return prompts

    @torch.no_grad()
    def sample(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Return noisy images (B, C, H, W) in [0, 1], not rounded, on the generator's device; one seed per image."""
        for entry in prompts:
            if missing := self._prompt_names - set(entry):
                raise UserError(f"prompts: {sorted(missing)} are missing; use the result of prompts() of this model")
        clean = clean.to(self._precision.device)
        padded = pad_to_multiple(_as_rgb(clean), DOWNSAMPLING)
        step = self._images_per_call(padded.shape[-2], padded.shape[-1])
        runs = [slice(first, first + step) for first in range(0, len(clean), step)]
        samples = [noise for run in runs for noise in self._padded_batch(padded[run], prompts[run], seeds[run], step)]
        return torch.stack([self._to_noisy(*image) for image in zip(samples, clean, prompts, strict=True)])

    def _padded_batch(self, padded: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int], step: int) -> Tensor:
        """:meth:`_model_noise` with the batch padded to ``step`` images, so that all calls use the same kernels."""
        spare = step - len(padded)
        filled = torch.cat([padded, padded[-1:].expand(spare, -1, -1, -1)]) if spare else padded
        noise = self._model_noise(filled, [*prompts, *[prompts[-1]] * spare], [*seeds, *[seeds[-1]] * spare])
        return noise[: len(padded)]

    def _to_noisy(self, noise: Tensor, clean: Tensor, prompts: Prompts) -> Tensor:
        """Add model noise (3, padded H, padded W) with the statistics of the reference to a clean image (C, H, W)."""
        channels, height, width = clean.shape
        noise = self._calibrated(self._units.coloured(noise, prompts), prompts)[:, :height, :width]
        noise = self._units.unwhitened(noise, _as_rgb(clean), prompts)
        if channels == 1:
            noise = noise[1:2]  # green: the channel closest to luminance
        return (clean + noise).clamp(0, 1)

    def _calibrated(self, noise: Tensor, prompts: Prompts) -> Tensor:
        """Calibrate whitened noise (3, H, W) to the reference as configured."""
        kind = self.model.config.calibration
        if kind == "none":
            return noise
        if kind == "moments":
            std, mean = torch.std_mean(noise, dim=(1, 2), keepdim=True, correction=0)
            return (noise - mean) / std.clamp(min=1e-3)
        if kind == "spectrum":
            return self._units.calibrated(noise, prompts)
        return self._units.colour_matched(noise, prompts[COVARIANCE])

    def _images_per_call(self, height: int, width: int) -> int:
        """Number of images of this size per network call; 1 on a CPU, where batching brings no speed-up."""
        if self._precision.device.type == "cpu":
            return 1
        return max(1, _PIXELS_ON_ACCELERATOR // (height * width))

    def _model_noise(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Noise in model units for padded images (B, 3, H, W) in [0, 1] on the device."""
        model, config, device = self._fast, self.model.config, self._precision.device
        images, d = len(clean), DOWNSAMPLING
        height, width = clean.shape[-2:]
        # One random field per image, so that overlapping tiles agree.
        size = (config.latent_channels, height // d, width // d)
        field = torch.stack([torch.randn(size, generator=generator(seed), device="cpu") for seed in seeds]).to(device)
        signed = clean * 2 - 1
        statistics = self._units.names.union(CALIBRATION)
        names = [name for name in prompts[0] if name not in statistics]
        code = {name: torch.stack([entry[name] for entry in prompts]).to(device) for name in names}

        def run(corners: list[tuple[int, int]], rows: int, columns: int) -> Tensor:
            """Tiles (n, B, 3, rows, columns)."""
            out = []
            features = model.expand(code, rows, columns, self._precision)  # equal for all tiles of a reference
            tiles_per_call = max(1, min(_TILES_PER_CALL, _PIXELS_PER_CALL // (rows * columns)))
            for first in range(0, len(corners), tiles_per_call):
                part = corners[first : first + tiles_per_call]
                tiles = torch.cat([signed[:, :, y : y + rows, x : x + columns] for y, x in part])
                h, w = rows // d, columns // d
                starts = torch.cat([field[:, :, y // d : y // d + h, x // d : x // d + w] for y, x in part])
                codes = {name: _for_tiles(value, len(part)) for name, value in code.items()}
                maps = [_for_tiles(value, len(part)) for value in features]
                network = model.network(codes, tiles, self._precision, maps)
                latent = model.denormalise(one_step(network, starts, model.schedule))
                with self._precision.autocast():
                    noise = model.autoencoder.decoder(latent, tiles).float()
                out.append(noise.view(len(part), images, *noise.shape[1:]))
            return torch.cat(out)

        return tiled(run, height, width, config.tile, config.tile_overlap)


def _for_tiles(value: Tensor, tiles: int) -> Tensor:
    """Repeat a tensor of images (B, ...) for each tile: (tiles * B, ...). A single image is broadcast instead."""
    return value if len(value) == 1 else value.repeat(tiles, *[1] * (value.dim() - 1))


def _as_rgb(image: Tensor) -> Tensor:
    """Expand grey images (..., 1, H, W) to three equal channels."""
    return image.expand(*image.shape[:-3], _COLOURS, -1, -1) if image.shape[-3] == 1 else image
