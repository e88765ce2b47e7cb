"""Model bundles: a folder per model with config.json, model.safetensors, README.md (card) and digest.json.

``write_bundle`` and ``read_bundle`` accept any module; ``save_bundle`` and ``load_bundle`` are for the noise model.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import os
import shutil
import tempfile
import urllib.request
from collections.abc import Callable
from functools import lru_cache
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeVar

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load, save_file
from torch import nn

from pngmodel.errors import IntegrityError, UserError
from pngmodel.jsontext import decode_json
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import ModelConfig
from pngmodel.sizes import BoundedBuild

FORMAT = "pngnoise-model"
FORMAT_VERSION = 1
SHIPPED = Path(__file__).parent / "pretrained"

CARD = "README.md"
_CONFIG, _WEIGHTS, _DIGEST = "config.json", "model.safetensors", "digest.json"
Module = TypeVar("Module", bound=nn.Module)
_ALLOWED_FACTOR, _ALLOWED_VALUES, _ALLOWED_TENSORS = 8, 1 << 22, 1000
"""Limits while a network is built: this factor times the values and tensors of the weights, plus these numbers."""
_MAX_CHARACTERS = 2000  # of a quoted error
_MISFITS = (SafetensorError, RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, MemoryError)
_DIGESTED = (_CONFIG, _WEIGHTS)  # without the card, so that it can be edited


def bundle_digest(files: dict[str, str]) -> str:
    """Return the hexadecimal digest over the digests of the files of a bundle."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def save_bundle(model: NoiseModel, folder: Path, *, training: dict[str, Any], card: str) -> str:
    """Write a noise model; see :func:`write_bundle`."""
    settings = model.config.model_dump(mode="json")
    return write_bundle(model, folder, kind=FORMAT, model=settings, training=training, card=card)


def write_bundle(
    module: nn.Module, folder: Path, *, kind: str, model: dict[str, Any], training: dict[str, Any], card: str
) -> str:
    """Write a bundle folder and return its digest. An existing folder is replaced after all files are written.

    Args:
        module: Module whose weights are written, in float32.
        folder: Folder of the bundle.
        kind: Name of the format, checked by :func:`read_bundle`.
        model: Settings from which the module can be built.
        training: Provenance (data, steps, seconds, device, commit).
        card: Markdown card; the digest does not cover it.

    Raises:
        UserError: The bundle cannot be written.
    """
    working = folder.with_name(f".{folder.name}.{os.getpid()}")
    shutil.rmtree(working, ignore_errors=True)
    try:
        working.mkdir(parents=True)
        config = {
            "format": kind,
            "format_version": FORMAT_VERSION,
            "model": model,
            "training": training,
        }
        (working / _CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
        weights = {k: _plain(v) for k, v in module.state_dict().items()}
        save_file(weights, working / _WEIGHTS)
        (working / _WEIGHTS).chmod(0o644)  # save_file makes it readable by its owner only
        (working / CARD).write_text(card)
        files = {name: _sha256(working / name) for name in _DIGESTED}
        digest = bundle_digest(files)
        (working / _DIGEST).write_text(json.dumps({"digest": digest, "files": files}, indent=1) + "\n")
        old = folder.with_name(f".{folder.name}.old")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.replace(old)
        working.replace(folder)
        shutil.rmtree(old, ignore_errors=True)
    except (OSError, SafetensorError) as error:
        raise UserError(
            f"{folder}: the model bundle cannot be written ({error}); check free space and permissions"
        ) from error
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return digest


def _plain(weights: torch.Tensor) -> torch.Tensor:
    """Convert floating point weights to float32 on the CPU; integers keep their dtype."""
    moved = weights.detach().cpu()
    return (moved.float() if moved.is_floating_point() else moved).contiguous()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = decode_json(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(
            f"{path}: missing; {path.parent} is not a model bundle (a folder with {_CONFIG}, {_WEIGHTS}, {_DIGEST})"
        ) from None
    except (OSError, ValueError) as error:
        raise IntegrityError(f"{path}: cannot be read as JSON ({error}); download the bundle again") from error
    if not isinstance(content, dict):
        raise IntegrityError(f"{path}: is not a JSON object; download the bundle again")
    return content


@lru_cache(maxsize=4)
def _fetched(url: str) -> Path:
    """Download a bundle by HTTP(S); cached for the lifetime of the process."""
    folder = Path(tempfile.mkdtemp(prefix="pngnoise-bundle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in (_DIGEST, *_DIGESTED):
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/{name}", timeout=60) as response:
                (folder / name).write_bytes(response.read())
        except (OSError, HTTPException) as error:
            raise UserError(f"{url}/{name}: cannot be downloaded ({error}); check the URL") from error
    return folder


def _local(path_or_url: str | Path) -> Path:
    """Return the local folder of a bundle, or of its downloaded copy."""
    text = str(path_or_url)
    if text.startswith(("http://", "https://")):
        return _fetched(text)
    if "://" in text and not text.startswith("file://"):
        raise UserError(
            f"{text}: pngmodel reads bundles from local folders and http(s) URLs; copy the bundle to a local folder, "
            "or use the pngnoise command, which reads object storage"
        )
    return Path(text.removeprefix("file://"))


def verify_bundle(path_or_url: str | Path) -> str:
    """Check all files of a bundle against its digest and return the digest.

    Raises:
        UserError: This is not a bundle.
        IntegrityError: A file is missing or differs from its digest.
    """
    folder = _local(path_or_url)
    record = _read_json(folder / _DIGEST)
    files = record.get("files")
    if not isinstance(files, dict) or set(files) != set(_DIGESTED) or record.get("digest") != bundle_digest(files):
        raise IntegrityError(f"{folder / _DIGEST}: is damaged; download the bundle again")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"{path}: missing from the bundle; download the bundle again")
        if _sha256(path) != expected:
            raise IntegrityError(
                f"{path}: the SHA-256 differs from {_DIGEST}; the bundle is damaged or was edited, download it again"
            )
    return str(record["digest"])


def bundle_config(path_or_url: str | Path) -> dict[str, Any]:
    """Read the config.json of a bundle: format, model, training.

    Raises:
        UserError: This is not a bundle.
        IntegrityError: The bundle is damaged.
    """
    location = _local(path_or_url) / _CONFIG
    config = _read_json(location)
    for key in ("model", "training"):
        if not isinstance(config.get(key), dict):
            raise IntegrityError(
                f"{location}: key {key!r} is {config.get(key)!r:.60}, expected an object; download the bundle again"
            )
    return config


def load_bundle(path_or_url: str | Path) -> tuple[NoiseModel, str]:
    """Load a noise model; see :func:`read_bundle`."""
    return read_bundle(path_or_url, FORMAT, lambda model: NoiseModel(ModelConfig.model_validate(model)))


def read_bundle(path_or_url: str | Path, kind: str, build: Callable[[Any], Module]) -> tuple[Module, str]:
    """Verify and load a bundle; return the module on the CPU and the digest.

    Args:
        path_or_url: Local folder, or its http(s) URL.
        kind: Required name of the format.
        build: Builds the untrained module from the key ``model`` of config.json.

    Raises:
        UserError: This is not a bundle of that format, or its format version is not supported.
        IntegrityError: The bundle is damaged.
    """
    folder = _local(path_or_url)
    digest = verify_bundle(folder)
    config = bundle_config(folder)
    if config.get("format") != kind or config.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{folder / _CONFIG}: format {config.get('format')!r} version {config.get('format_version')!r}; "
            f"expected {kind!r} version {FORMAT_VERSION}"
        )
    try:
        # load() reads all bytes; loading by path would map the file, which breaks if the bundle is replaced
        weights = load((folder / _WEIGHTS).read_bytes())
        values = _ALLOWED_FACTOR * sum(v.numel() for v in weights.values()) + _ALLOWED_VALUES
        with BoundedBuild(values, _ALLOWED_FACTOR * len(weights) + _ALLOWED_TENSORS):
            model = build(config["model"])
        model.load_state_dict(weights)
    except ValidationError as error:
        raise UserError(f"{folder / _CONFIG}: key 'model' is invalid: {str(error)[:_MAX_CHARACTERS]}") from error
    except _MISFITS as error:
        raise IntegrityError(
            f"{folder / _WEIGHTS}: does not match {_CONFIG}: {str(error)[:_MAX_CHARACTERS]}"
        ) from error
    if not all(bool(torch.isfinite(v).all()) for v in weights.values() if v.is_floating_point()):
        raise IntegrityError(f"{folder / _WEIGHTS}: has NaN or infinite weights; train the model or download it again")
    return model, digest
