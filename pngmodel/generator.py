"""NoiseGenerator: the public face of the learned noise model."""

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
_TILES_AT_ONCE = 32  # small tiles: an image of 256 x 256 is 25 of 64 x 64, and every call has its price
_PIXELS_AT_ONCE = 16 * 256**2  # large tiles: features of full size take memory
_PIXELS_ON_ACCELERATOR = 16 * 256**2  # images that share calls of the network
_CALIBRATION_SIDE = 256
_CALIBRATION_DRAWS = 3  # what one draw says of the model's covariances is as uncertain as one image


class NoiseGenerator(NoisyImageGenerator):
    """Generates noise like that of a reference on any clean image, in one network evaluation.

    Example:
        >>> from pngmodel import NoiseGenerator
        >>> generator = NoiseGenerator.from_pretrained()
        >>> noisy = generator.generate(clean, reference=(real_noisy, real_clean), seed=1)

    On a processor every network call sees the tiles of one image only. On an accelerator images share calls, always as
    many, and the statistics of the reference are given there too; a sample is then as independent of its batch as the
    rows of the device's products of matrices are of each other.
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
            clean = clean[:, :height, :width]
            shown = clean[None].to(self._precision.device)
            seeds = [derive_seed("calibration", k) for k in range(_CALIBRATION_DRAWS)]
            samples = [self._units.coloured(self._model_noise(shown, [prompts], [s])[0].cpu(), prompts) for s in seeds]
            prompts |= self._units.calibration(samples, noisy[:, :height, :width] - clean, clean, prompts)
        return prompts

    @torch.no_grad()
    def sample(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Noisy images (B, C, H, W) in [0, 1], not rounded, on the generator's device; one seed per image."""
        for entry in prompts:
            if missing := self._prompt_names - set(entry):
                raise UserError(f"prompts: {sorted(missing)} missing; use what prompts() of this model returned")
        clean = clean.to(self._precision.device)
        padded = pad_to_multiple(_as_rgb(clean), DOWNSAMPLING)
        step = self._images_at_once(padded.shape[-2], padded.shape[-1])
        runs = [slice(first, first + step) for first in range(0, len(clean), step)]
        drawn = [noise for run in runs for noise in self._drawn(padded[run], prompts[run], seeds[run], step)]
        return torch.stack([self._finished(*image) for image in zip(drawn, clean, prompts, strict=True)])

    def _drawn(self, padded: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int], step: int) -> Tensor:
        """:meth:`_model_noise` of up to ``step`` images by calls of always as many, whose kernels are then the same."""
        spare = step - len(padded)
        filled = torch.cat([padded, padded[-1:].expand(spare, -1, -1, -1)]) if spare else padded
        noise = self._model_noise(filled, [*prompts, *[prompts[-1]] * spare], [*seeds, *[seeds[-1]] * spare])
        return noise[: len(padded)]

    def _finished(self, noise: Tensor, clean: Tensor, prompts: Prompts) -> Tensor:
        """A noisy image (C, H, W): model noise (3, padded H, padded W), given the reference's statistics, on top."""
        channels, height, width = clean.shape
        noise = self._calibrated(self._units.coloured(noise, prompts), prompts)[:, :height, :width]
        noise = self._units.unwhitened(noise, _as_rgb(clean), prompts)
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

    def _images_at_once(self, height: int, width: int) -> int:
        """Images of this size whose tiles go through the network together.

        One where a processor computes, which gains nothing from more; that image's reference is then expanded once.
        """
        if self._precision.device.type == "cpu":
            return 1
        return max(1, _PIXELS_ON_ACCELERATOR // (height * width))

    def _model_noise(self, clean: Tensor, prompts: Sequence[Prompts], seeds: Sequence[int]) -> Tensor:
        """Noise in model units for padded images (B, 3, H, W) in [0, 1] on the device, one call for all."""
        model, config, device = self._fast, self.model.config, self._precision.device
        images, d = len(clean), DOWNSAMPLING
        height, width = clean.shape[-2:]
        # One random field for each whole image: tiles agree where they overlap.
        size = (config.latent_channels, height // d, width // d)
        field = torch.stack([torch.randn(size, generator=generator(seed), device="cpu") for seed in seeds]).to(device)
        signed = clean * 2 - 1
        beside = self._units.names.union(CALIBRATION)
        names = [name for name in prompts[0] if name not in beside]
        code = {name: torch.stack([entry[name] for entry in prompts]).to(device) for name in names}

        def run(corners: list[tuple[int, int]], rows: int, columns: int) -> Tensor:
            """Tiles (n, B, 3, rows, columns)."""
            out = []
            features = model.expand(code, rows, columns, self._precision)  # a reference's are the same for all tiles
            at_once = max(1, min(_TILES_AT_ONCE, _PIXELS_AT_ONCE // (rows * columns)))
            for first in range(0, len(corners), at_once):
                part = corners[first : first + at_once]
                tiles = torch.cat([signed[:, :, y : y + rows, x : x + columns] for y, x in part])
                h, w = rows // d, columns // d
                starts = torch.cat([field[:, :, y // d : y // d + h, x // d : x // d + w] for y, x in part])
                shown = {name: _for_tiles(value, len(part)) for name, value in code.items()}
                maps = [_for_tiles(value, len(part)) for value in features]
                network = model.network(shown, tiles, self._precision, maps)
                latent = model.denormalise(one_step(network, starts, model.schedule))
                with self._precision.autocast():
                    made = model.autoencoder.decoder(latent, tiles).float()
                out.append(made.view(len(part), images, *made.shape[1:]))
            return torch.cat(out)

        return tiled(run, height, width, config.tile, config.tile_overlap)


def _for_tiles(value: Tensor, tiles: int) -> Tensor:
    """What belongs to images (B, ...), for so many tiles of each, (tiles * B, ...); of one image as it is."""
    return value if len(value) == 1 else value.repeat(tiles, *[1] * (value.dim() - 1))


def _as_rgb(image: Tensor) -> Tensor:
    """Grey (..., 1, H, W) is shown to the model as three equal channels."""
    return image.expand(*image.shape[:-3], _COLOURS, -1, -1) if image.shape[-3] == 1 else image
