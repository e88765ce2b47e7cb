"""Noise generators by name: the shipped model, a bundle at any URL (noise model or trained baseline), or a baseline
without training. Instances are cached per process."""

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
    """Return the local folder of a bundle; bundles on object storage are copied to a temporary folder.

    Args:
        model: ``shipped``, a folder or URL of a bundle, or a registry version such as ``REGISTRY/NAME@3``.

    Raises:
        UserError: There is no such bundle.
        IntegrityError: The bundle of a registry version has another digest than its record.
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
        raise UserError(f"{model}: no model bundle found; check the URL and the credentials")
    return _fetched(model, sha256(read_bytes(record)))


def _expected(folder: Path, digest: str, model: str) -> Path:
    """Check the digest that the bundle states; readers of the bundle verify it."""
    if read_json(str(folder / "digest.json")).get("digest") != digest:
        raise IntegrityError(
            f"{model}: the bundle in {folder} differs from the record of the version; add the bundle again"
        )
    return folder


@lru_cache(maxsize=4)
def _fetched(url: str, record: str) -> Path:
    """Copy a bundle from object storage to a temporary folder; cached for this process until its record changes."""
    names = list_files(url)
    for name in names:  # keys on object storage may contain `..`, which would write outside the folder
        try:
            inner(name)
        except ValueError as error:
            raise IntegrityError(f"{url}: has a file whose name {error}; use another source of the bundle") from None
    folder = Path(tempfile.mkdtemp(prefix="pngnoise-bundle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(read_bytes(join(url, name)))
    return folder


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread in the block, because sums over several threads round differently, and results must not
    depend on the number of cores.

    To use more cores, use more processes (``--cluster local``).
    """
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def model_digest(model: str) -> str:
    """Return the identity of a generator: the verified digest of a bundle, or a digest of the name of a baseline."""
    return content_key({"baseline": model}) if model in BASELINES else verify_bundle(bundle_folder(model))


@lru_cache(maxsize=2)
def load_generator(model: str, device: str, digest: str) -> NoisyImageGenerator:
    """Load the generator ``model``.

    Args:
        model: ``shipped``, the name of a baseline, or a bundle; see :func:`bundle_folder`.
        device: cpu, cuda or cuda:N.
        digest: Expected :func:`model_digest`.

    Raises:
        UserError: ``model`` is neither ``shipped``, a baseline nor a bundle.
        IntegrityError: The bundle is damaged or has another digest.
    """
    if model_digest(model) != digest:
        raise IntegrityError(f"{model}: the model has changed since this run was planned; run the same command again")
    if model in BASELINES:
        return baseline(model)
    folder = bundle_folder(model)
    if bundle_config(folder).get("format") == FORMAT:
        return load_baseline(folder, device=device)
    return NoiseGenerator.from_pretrained(folder, device=device)
