"""Small valid files and stores that the fuzz targets start from, made by the product and by independent writers."""

from __future__ import annotations

import io
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from functools import cached_property
from pathlib import Path

import h5py
import imagecodecs
import numpy as np
import scipy.io
import tifffile
import torch
import zarr
from PIL import Image
from torch import nn

from pngmodel.baselines.trained import save_baseline, trained
from pngmodel.bundle import save_bundle, write_bundle
from pngmodel.denoisers import DENOISER_FORMAT, DenoiserConfig, build
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import PRESETS
from pngmodel.training import checkpoints

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 255, (12, 10, 3), np.uint8)
BLOCKS = RANDOM.integers(0, 255, (2, 2, 6, 5, 3), np.uint8)
_SMALL = {"channels": (4, 4, 8, 8), "width": 24, "depth": 1, "heads": 2}


def saved(write: Callable[[io.BytesIO], object]) -> bytes:
    """What ``write`` leaves in a buffer."""
    buffer = io.BytesIO()
    write(buffer)
    return buffer.getvalue()


def pngs() -> tuple[bytes, ...]:
    deep = bytes(imagecodecs.png_encode(PIXELS.astype(np.uint16) * 257))
    grey = saved(lambda b: Image.fromarray(PIXELS[..., 0]).save(b, "PNG"))
    exif = saved(lambda b: Image.fromarray(PIXELS).save(b, "PNG", exif=Image.Exif().tobytes()))
    return saved(lambda b: Image.fromarray(PIXELS).save(b, "PNG")), deep, grey, exif


def jpegs() -> tuple[bytes, ...]:
    exif = Image.Exif()
    exif[0x0112] = 1
    return (
        saved(lambda b: Image.fromarray(PIXELS).save(b, "JPEG", exif=exif)),
        saved(lambda b: Image.fromarray(PIXELS[..., 0]).save(b, "JPEG", progressive=True)),
    )


def bmps() -> tuple[bytes, ...]:
    return tuple(saved(lambda b, p=p: Image.fromarray(p).save(b, "BMP")) for p in (PIXELS, PIXELS[..., 0]))


def tiffs() -> tuple[bytes, ...]:
    def tiff(pixels: np.ndarray, **options: object) -> bytes:
        return saved(lambda b: tifffile.imwrite(b, pixels, **options))

    return (
        tiff(PIXELS),
        tiff(PIXELS, compression="lzw", predictor=True),
        tiff(PIXELS, tile=(16, 16), compression="zlib", bigtiff=True),
        tiff(PIXELS, compression="zstd", byteorder=">"),
        tiff(PIXELS, compression="jpeg"),
        tiff(PIXELS[..., 0].astype(np.float32), photometric="minisblack"),
    )


def stacks() -> tuple[bytes, ...]:
    planes = BLOCKS[0, 0].transpose(2, 0, 1)
    return (
        saved(lambda b: tifffile.imwrite(b, planes, photometric="minisblack", compression="zlib")),
        saved(lambda b: tifffile.imwrite(b, planes, imagej=True)),
        saved(lambda b: tifffile.imwrite(b, planes, photometric="minisblack", ome=True)),
        saved(lambda b: tifffile.imwrite(b, planes, photometric="minisblack", contiguous=True, truncate=True)),
    )


def matlab5() -> tuple[bytes, ...]:
    arrays = {"b": BLOCKS, "i": PIXELS, "siddplus_valid_noisy_srgb": BLOCKS[0]}
    return tuple(saved(lambda b, p=p: scipy.io.savemat(b, arrays, do_compression=p)) for p in (False, True))


def matlab73(folder: Path) -> tuple[bytes, ...]:
    found = []
    for name, options in (("plain", {}), ("packed", {"chunks": (1, 5, 3, 2, 2), "compression": "gzip"})):
        path = folder / f"{name}.mat"
        with h5py.File(path, "w", userblock_size=512) as file:
            file.create_dataset("b", data=BLOCKS.T, **options)
            file["i"] = PIXELS.T
        found.append(path.read_bytes())
    return tuple(found)


def dnd_info(folder: Path) -> bytes:
    """info.mat of DND: boxes of two images."""
    path = folder / "info.mat"
    with h5py.File(path, "w") as file:
        group = file.create_group("info")
        boxes = [file.create_dataset(f"r{k}", data=np.array([[1, 1, 5, 5], [2, 2, 6, 5]], float).T) for k in range(2)]
        group["boundingboxes"] = np.array([[box.ref for box in boxes]], h5py.ref_dtype)
    return path.read_bytes()


def archive(kind: str, names: list[str]) -> bytes:
    """An archive with the same PNG under each name."""
    content = pngs()[0]
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as packed:
            for name in names:
                packed.writestr(zipfile.ZipInfo(name.replace("\0", "") or "empty"), content)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class Ground:
    """Stores below a folder, each made when it is first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._copies = 0

    def copy(self, store: Path) -> Path:
        """A copy that a target may spoil."""
        self._copies += 1
        target = self.folder / f"copy{self._copies}" / store.name
        shutil.copytree(store, target)
        return target

    def new(self, name: str) -> Path:
        """An empty folder."""
        self._copies += 1
        target = self.folder / f"new{self._copies}" / name
        target.mkdir(parents=True)
        return target

    @cached_property
    def pairs(self) -> Path:
        """A paired folder of four images."""
        root = self.folder / "pairs"
        y, x = np.mgrid[0:48, 0:48]
        for k in range(4):
            clean = np.clip(110 + 60 * np.sin(x / 9 + k) * np.cos(y / 7), 20, 230)[..., None] * [0.9, 1.0, 1.1]
            noisy = clean + RANDOM.standard_normal(clean.shape) * (3 + clean / 30)
            for side, image in (("noisy", noisy), ("clean", clean)):
                (root / side).mkdir(parents=True, exist_ok=True)
                pixels = image.round().clip(0, 255).astype(np.uint8)
                Image.fromarray(pixels).save(root / side / f"street_{k}00_{k}.png")
        return root

    @cached_property
    def catalogue(self) -> Path:
        from tasks.datasets.ingest import ingest

        ingest(str(self.pairs), "folders", str(self.folder / "catalogue"))
        return self.folder / "catalogue"

    @cached_property
    def patches(self) -> Path:
        from tasks.datasets.extraction import Geometry, extract_patches

        extract_patches(str(self.catalogue), str(self.folder / "patches"), geometry=Geometry(size=16), shard=8)
        return self.folder / "patches"

    @cached_property
    def corpus(self) -> Path:
        """A published corpus by a fast baseline."""
        from tasks.corpus.gate import load_rules
        from tasks.corpus.generate import make_corpus_shards
        from tasks.corpus.plan import CorpusParameters, evaluated_pairs, is_baseline, plan_corpus
        from tasks.corpus.publish import judge, publish
        from tasks.evaluation.noise import EvaluateParameters, evaluate_noise
        from tasks.runtime.clusters import ClusterConfig, open_cluster

        parameters = CorpusParameters(
            model="heteroscedastic",
            references=str(self.patches),
            clean=str(self.pairs / "clean"),
            output=str(self.folder / "corpus"),
            crop=16,
            shard=8,
            override_gate="a corpus to be spoilt",
        )
        plan = plan_corpus(parameters)
        make_corpus_shards(plan)
        with open_cluster(ClusterConfig()) as cluster:
            judged = judge(plan, load_rules("default", baseline=is_baseline(parameters)), cluster)
        measured = EvaluateParameters(model=parameters.model, limit=2, baselines=False, **evaluated_pairs(plan))
        publish(plan, judged, evaluate_noise(measured))
        return self.folder / "corpus"

    @cached_property
    def bank(self) -> Path:
        from tasks.models.prompt_bank import BankParameters, build_bank

        location = self.folder / "bank"
        build_bank(
            BankParameters(
                references=str(self.patches), output=str(location), model="spectrum_matched", shard=3, limit=4
            )
        )
        return location

    @cached_property
    def export(self) -> Path:
        from tasks.corpus.exports.export import ExportParameters, export_corpus

        location = self.folder / "export"
        export_corpus(ExportParameters(corpus=str(self.corpus), output=str(location), format="webdataset"))
        return location

    @cached_property
    def bundle(self) -> Path:
        torch.manual_seed(0)
        model = NoiseModel(PRESETS["tiny"].model_copy(update=_SMALL))
        save_bundle(model, self.folder / "bundle", training={}, card="")
        return self.folder / "bundle"

    @cached_property
    def denoiser(self) -> Path:
        config = DenoiserConfig.model_validate({"name": "dncnn", "settings": {"depth": 3, "width": 4}})
        model = config.model_dump(mode="json")
        write_bundle(build(config), self.folder / "denoiser", kind=DENOISER_FORMAT, model=model, training={}, card="")
        return self.folder / "denoiser"

    @cached_property
    def baseline(self) -> Path:
        chosen = trained("flow_srgb")
        settings = chosen.settings()
        network: nn.Module = chosen.build(settings)
        save_baseline("flow_srgb", network, settings, self.folder / "baseline", training={}, card="")
        return self.folder / "baseline"

    @cached_property
    def registry(self) -> Path:
        """One version of ``m``, which is champion, with an evaluation record."""
        from tasks.models.promotion import PromoteParameters, promote
        from tasks.models.registry import add_version
        from tasks.stores.model_registry import Registered

        location = self.folder / "registry"
        add_version(str(self.bundle), f"{location}/m")
        digest = Registered(str(location), "m").version(1).digest
        record, rules = self.folder / "record.json", self.folder / "gate.yaml"
        record.write_text(f'{{"protocol": "noise-A", "model": {{"digest": "{digest}"}}, "metrics": {{"kld": 0.1}}}}')
        rules.write_text("limits: {kld: {max: 1}}\n")
        promote(PromoteParameters(version=f"{location}/m@1", record=str(record), rules=str(rules)))
        return location

    @cached_property
    def checkpoint(self) -> Path:
        location = self.folder / "checkpoints"
        checkpoints.save(location, 5, {"w": torch.ones(3), "optimiser.0.step": torch.ones(())}, {"identity": "i"})
        return location

    @cached_property
    def array(self) -> Path:
        """A Zarr array of clean images."""
        location = self.folder / "array"
        found = zarr.create_array(str(location), shape=(3, 3, 8, 8), chunks=(1, 3, 8, 8), dtype="u1", zarr_format=3)
        found[:] = RANDOM.integers(0, 255, (3, 3, 8, 8), np.uint8)
        return location
