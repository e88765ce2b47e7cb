"""NoiseGenerator: the public face of the learned noise model."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from pngmodel.bundle import SHIPPED, load_bundle
from pngmodel.consistency import one_step
from pngmodel.errors import UserError
from pngmodel.images import pad_to_multiple
from pngmodel.interface import NoisyImageGenerator, Prompts
from pngmodel.model import NoiseModel, Precision
from pngmodel.presets import DOWNSAMPLING, LEVELS
from pngmodel.seeds import derive_seed, generator
from pngmodel.tiling import tiled
from pngmodel.units import CALIBRATION, COVARIANCE, NoiseUnits

_COLOURS = 3
_TILES_AT_ONCE = 32  # small tiles: an image of 256 x 256 is 25 of 64 x 64, and every call has its price
_PIXELS_AT_ONCE = 16 * 256**2  # large tiles: features of full size take memory
_CALIBRATION_SIDE = 256
_CALIBRATION_DRAWS = 3  # what one draw says of the model's covariances is as uncertain as one image


class NoiseGenerator(NoisyImageGenerator):
    """Generates noise like that of a reference on any clean image, in one network evaluation.

    Example:
        >>> from pngmodel import NoiseGenerator
        >>> generator = NoiseGenerator.from_pretrained()
        >>> noisy = generator.generate(clean, reference=(real_noisy, real_clean), seed=1)

    Every network call sees the tiles of one image only, so a sample does not depend on its batch.
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
        """Load a model bundle folder; without an argument the one shipped with the package.

        Takes a local path, a ``file://`` or an ``http(s)://`` URL of the folder; this layer knows no object storage.
        The flows and the command line do, and fetch the folder first.

        Raises:
            UserError: not a bundle, or written by a newer version. IntegrityError: a wrong digest.
        """
        model, digest = load_bundle(path_or_url or SHIPPED)
        return cls(model, device=device, digest=digest)

    def uncalibrated(self) -> NoiseGenerator:
        """The same network without calibration: what it draws by itself."""
        model = copy.copy(self.model)
        model.config = model.config.model_copy(update={"calibration": "none"})
        return NoiseGenerator(model, device=str(self._precision.device), digest=self.digest)

    @torch.no_grad()
    def extract(self, noisy: Tensor, clean: Tensor) -> Prompts:
        """Prompts of one reference pair (C, H, W) in [0, 1]: compact codes and the whitening curves."""
        if min(noisy.shape[-2:]) < 2 * DOWNSAMPLING:
            raise UserError(f"reference of {tuple(noisy.shape[-2:])} pixels is too small; give at least 16 x 16")
        noisy, clean = _as_rgb(noisy.cpu()), _as_rgb(clean.cpu())
        noise, fitted = self._units.fit(noisy, clean)
        with self._precision.autocast():
            code = self._fast.autoencoder.encoder.prompts(noise[None].to(self._precision.device))
        prompts = {name: value[0].float().cpu() for name, value in code.items()} | fitted
        if self.model.config.calibration == "spectrum":
            height, width = (min(side, _CALIBRATION_SIDE) for side in noise.shape[-2:])
            draws = [
                self._whitened_noise(clean[:, :height, :width], prompts, derive_seed("calibration", k))
                for k in range(_CALIBRATION_DRAWS)
            ]
            clean = clean[:, :height, :width]
            prompts |= self._units.calibration(draws, noisy[:, :height, :width] - clean, clean, prompts)
        return prompts

    @torch.no_grad()
    def sample(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Noisy images (B, C, H, W) in [0, 1], not rounded; one independent seed per image."""
        for entry in prompts:
            if missing := self._prompt_names - set(entry):
                raise UserError(f"prompts: {sorted(missing)} missing; use what prompts() of this model returned")
        return torch.stack([self._one(c.cpu(), p, s) for c, p, s in zip(clean, prompts, seeds, strict=True)])

    def _one(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        channels, height, width = clean.shape
        rgb = _as_rgb(clean)
        noise = self._whitened_noise(pad_to_multiple(rgb[None], DOWNSAMPLING)[0], prompts, seed)
        noise = self._calibrated(noise, prompts)[:, :height, :width]
        noise = self._units.unwhitened(noise, rgb, prompts)
        if channels == 1:
            noise = noise[1:2]  # green: the channel closest to luminance
        return (clean + noise).clamp(0, 1)

    def _calibrated(self, noise: Tensor, prompts: Prompts) -> Tensor:
        """Whitened noise (3, H, W) with the moments that the configuration takes from the reference."""
        kind = self.model.config.calibration
        if kind == "none":
            return noise
        if kind == "moments":
            std, mean = torch.std_mean(noise, dim=(1, 2), keepdim=True, correction=0)
            return (noise - mean) / std.clamp(min=1e-3)
        if kind == "spectrum":
            return self._units.calibrated(noise, prompts)
        return self._units.colour_matched(noise, prompts[COVARIANCE])

    def _whitened_noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Noise in whitened units for a padded image (3, H, W) in [0, 1]: the model's, coloured by the reference."""
        return self._units.coloured(self._model_noise(clean, prompts, seed), prompts)

    def _model_noise(self, clean: Tensor, prompts: Prompts, seed: int) -> Tensor:
        """Noise in model units for a padded image (3, H, W) in [0, 1]."""
        model, config, device = self._fast, self.model.config, self._precision.device
        height, width = clean.shape[-2:]
        g = generator(seed)
        # One random field for the whole image: tiles agree where they overlap.
        field = torch.randn((config.latent_channels, height // DOWNSAMPLING, width // DOWNSAMPLING), generator=g)
        signed = clean * 2 - 1
        beside = self._units.names.union(CALIBRATION)
        code = {k: v[None].to(device) for k, v in prompts.items() if k not in beside}

        def run(corners: list[tuple[int, int]], rows: int, columns: int) -> Tensor:
            out = []
            features = model.expand(code, rows, columns, self._precision)  # one reference: the same for all tiles
            at_once = max(1, min(_TILES_AT_ONCE, _PIXELS_AT_ONCE // (rows * columns)))
            for first in range(0, len(corners), at_once):
                part = corners[first : first + at_once]
                images = torch.stack([signed[:, y : y + rows, x : x + columns] for y, x in part]).to(device)
                h, w, d = rows // DOWNSAMPLING, columns // DOWNSAMPLING, DOWNSAMPLING
                starts = torch.stack([field[:, y // d : y // d + h, x // d : x // d + w] for y, x in part]).to(device)
                network = model.network(code, images, self._precision, features)
                latent = model.denormalise(one_step(network, starts, model.schedule))
                with self._precision.autocast():
                    out.append(model.autoencoder.decoder(latent, images).float().cpu())
            return torch.cat(out)

        return tiled(run, height, width, _COLOURS, config.tile, config.tile_overlap)


def _as_rgb(image: Tensor) -> Tensor:
    """Grey (1, H, W) is shown to the model as three equal channels."""
    return image.expand(_COLOURS, -1, -1) if image.shape[0] == 1 else image
