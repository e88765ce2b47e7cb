"""Noise generators by name: the shipped model, a bundle at any URL (of the model or of a trained baseline), or a
baseline that needs no training; one instance per process."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path

import torch

from pngmodel import NoiseGenerator
from pngmodel.baselines import BASELINES, baseline
from pngmodel.baselines.trained import FORMAT, load_baseline
from pngmodel.bundle import SHIPPED, bundle_config, verify_bundle
from pngmodel.errors import IntegrityError, UserError
from pngmodel.interface import NoisyImageGenerator
from tasks.runtime.provenance import content_key
from tasks.stores.io.filesystem import exists, join, local_path, read_bytes, read_json, sha256
from tasks.stores.io.listing import list_files
from tasks.stores.io.relative_path import inner
from tasks.stores.model_registry import resolve

SHIPPED_MODEL = "shipped"


def bundle_folder(model: str) -> Path:
    """The local folder of ``shipped``, of a bundle on disk or a version of a registry, or of a copy of one on object
    storage.

    Raises:
        UserError: there is none. IntegrityError: a registry's version is another bundle than its record says.
    """
    if model == SHIPPED_MODEL:
        return SHIPPED
    if (registered := resolve(model)) is not None:
        return _expected(bundle_folder(registered[0]), registered[1], model)
    path = local_path(model)
    if path is not None:
        return path
    record = join(model, "digest.json")
    if not exists(record):
        raise UserError(f"{model}: no model bundle there; check the URL and the credentials")
    return _fetched(model, sha256(read_bytes(record)))


def _expected(folder: Path, digest: str, model: str) -> Path:
    """The folder, whose bundle says that it has this digest; what reads it verifies that."""
    if read_json(str(folder / "digest.json")).get("digest") != digest:
        raise IntegrityError(f"{model}: {folder} holds another bundle than the version's record says; add it again")
    return folder


@lru_cache(maxsize=4)
def _fetched(url: str, record: str) -> Path:
    """A local copy of a bundle on object storage, kept for the life of the process unless its record changes."""
    names = list_files(url)
    for name in names:  # on object storage a key may hold `..`, and what is written here is a disk
        try:
            inner(name)
        except ValueError as error:
            raise IntegrityError(f"{url}: holds a file whose name {error}; fetch the bundle from elsewhere") from None
    folder = Path(tempfile.mkdtemp(prefix="pngnoise-bundle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(read_bytes(join(url, name)))
    return folder


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread, since sums over several round differently: bytes must not depend on the machine's cores.

    Use more cores by more processes (``--cluster local``).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def model_digest(model: str) -> str:
    """What identifies the generator in a recipe: a bundle's verified digest, or a baseline's name."""
    return content_key({"baseline": model}) if model in BASELINES else verify_bundle(bundle_folder(model))


@lru_cache(maxsize=2)
def load_generator(model: str, device: str, digest: str) -> NoisyImageGenerator:
    """The generator called ``model``, which has this :func:`model_digest`.

    Raises:
        UserError: neither ``shipped``, a baseline nor a bundle. IntegrityError: a damaged bundle, or another one.
    """
    if model_digest(model) != digest:
        raise IntegrityError(f"{model}: another model is there since this run was planned; run the same command again")
    if model in BASELINES:
        return baseline(model)
    folder = bundle_folder(model)
    if bundle_config(folder).get("format") == FORMAT:
        return load_baseline(folder, device=device)
    return NoiseGenerator.from_pretrained(folder, device=device)
