"""Model bundles: one folder is one model. config.json, model.safetensors, README.md (card), digest.json.

``write_bundle`` and ``read_bundle`` do this for any module; ``save_bundle`` and ``load_bundle`` for the noise model.
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
_ROOM, _SPARE, _PARTS = 8, 1 << 22, 1000
"""Values and tensors that a network may make while it is built, for those that are its weights and beside them."""
_SHOWN = 2000  # characters of what does not fit
_MISFITS = (SafetensorError, RuntimeError, ValueError, TypeError, ArithmeticError, LookupError, MemoryError)
_DIGESTED = (_CONFIG, _WEIGHTS)  # the card may be corrected without making another model


def bundle_digest(files: dict[str, str]) -> str:
    """One digest over the digests of the files that make the model, hexadecimal."""
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def save_bundle(model: NoiseModel, folder: Path, *, training: dict[str, Any], card: str) -> str:
    """:func:`write_bundle` of a noise model."""
    settings = model.config.model_dump(mode="json")
    return write_bundle(model, folder, kind=FORMAT, model=settings, training=training, card=card)


def write_bundle(
    module: nn.Module, folder: Path, *, kind: str, model: dict[str, Any], training: dict[str, Any], card: str
) -> str:
    """Write a bundle folder and return its digest; an existing folder is replaced only when complete.

    Args:
        module: whose weights are written, in float32.
        folder: where.
        kind: the format's name, which :func:`read_bundle` asks for.
        model: what the module is made from.
        training: provenance (data, steps, seconds, device, commit).
        card: the text for people, which the digest does not cover.
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
        (working / _WEIGHTS).chmod(0o644)  # save_file leaves it readable by its writer only
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
        raise UserError(f"{folder}: cannot write the model bundle ({error})") from error
    finally:
        shutil.rmtree(working, ignore_errors=True)
    return digest


def _plain(weights: torch.Tensor) -> torch.Tensor:
    """float32 on the CPU; counters stay whole."""
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
        raise IntegrityError(f"{path}: cannot be read as JSON ({error}); fetch the bundle again") from error
    if not isinstance(content, dict):
        raise IntegrityError(f"{path}: holds no JSON object; fetch the bundle again")
    return content


@lru_cache(maxsize=4)
def _fetched(url: str) -> Path:
    """A bundle behind http(s), copied for the life of the process."""
    folder = Path(tempfile.mkdtemp(prefix="pngnoise-bundle-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    for name in (_DIGEST, *_DIGESTED):
        try:
            with urllib.request.urlopen(f"{url.rstrip('/')}/{name}", timeout=60) as answer:
                (folder / name).write_bytes(answer.read())
        except (OSError, HTTPException) as error:
            raise UserError(f"{url}/{name}: cannot be fetched ({error}); check the address") from error
    return folder


def _local(path_or_url: str | Path) -> Path:
    """The folder of a bundle: where it is, or where its copy is."""
    text = str(path_or_url)
    if text.startswith(("http://", "https://")):
        return _fetched(text)
    if "://" in text and not text.startswith("file://"):
        raise UserError(f"{text}: this layer reads local folders and http(s); fetch the bundle first, as the flows do")
    return Path(text.removeprefix("file://"))


def verify_bundle(path_or_url: str | Path) -> str:
    """Check every digested file and return the bundle's digest.

    Raises:
        UserError: not a bundle. IntegrityError: a file is missing or differs from its digest.
    """
    folder = _local(path_or_url)
    record = _read_json(folder / _DIGEST)
    files = record.get("files")
    if not isinstance(files, dict) or set(files) != set(_DIGESTED) or record.get("digest") != bundle_digest(files):
        raise IntegrityError(f"{folder / _DIGEST}: is damaged; fetch the bundle again")
    for name, expected in files.items():
        path = folder / name
        if not path.is_file():
            raise IntegrityError(f"{path}: missing from the bundle; fetch it again")
        if _sha256(path) != expected:
            raise IntegrityError(
                f"{path}: sha256 differs from {_DIGEST}; the bundle is damaged or was edited, fetch it again"
            )
    return str(record["digest"])


def bundle_config(path_or_url: str | Path) -> dict[str, Any]:
    """The config.json of a bundle: format, model, training.

    Raises:
        UserError: not a bundle. IntegrityError: damaged.
    """
    location = _local(path_or_url) / _CONFIG
    config = _read_json(location)
    for key in ("model", "training"):
        if not isinstance(config.get(key), dict):
            raise IntegrityError(
                f"{location}: key {key!r} is {config.get(key)!r:.60}, no object; fetch the bundle again"
            )
    return config


def load_bundle(path_or_url: str | Path) -> tuple[NoiseModel, str]:
    """:func:`read_bundle` of a noise model."""
    return read_bundle(path_or_url, FORMAT, lambda model: NoiseModel(ModelConfig.model_validate(model)))


def read_bundle(path_or_url: str | Path, kind: str, build: Callable[[Any], Module]) -> tuple[Module, str]:
    """Verify and load a bundle; returns the module on the CPU and its digest.

    Args:
        path_or_url: folder, or http(s) address of one.
        kind: the format's name that it must have.
        build: the module, untrained, of what ``model`` in config.json holds.

    Raises:
        UserError: not a bundle, or a version this release cannot read. IntegrityError: damaged.
    """
    folder = _local(path_or_url)
    digest = verify_bundle(folder)
    config = bundle_config(folder)
    if config.get("format") != kind or config.get("format_version") != FORMAT_VERSION:
        raise UserError(
            f"{folder / _CONFIG}: format {config.get('format')!r} version {config.get('format_version')!r}; "
            f"{kind!r} version {FORMAT_VERSION} is what can be read here"
        )
    try:
        # load() takes bytes: loading by path maps the file, which a replaced bundle would pull away
        weights = load((folder / _WEIGHTS).read_bytes())
        with BoundedBuild(_ROOM * sum(v.numel() for v in weights.values()) + _SPARE, _ROOM * len(weights) + _PARTS):
            model = build(config["model"])
        model.load_state_dict(weights)
    except ValidationError as error:
        raise UserError(f"{folder / _CONFIG}: key 'model' is not valid: {str(error)[:_SHOWN]}") from error
    except _MISFITS as error:
        raise IntegrityError(f"{folder / _WEIGHTS}: does not fit {_CONFIG}: {str(error)[:_SHOWN]}") from error
    if not all(bool(torch.isfinite(v).all()) for v in weights.values() if v.is_floating_point()):
        raise IntegrityError(f"{folder / _WEIGHTS}: holds NaN or infinite weights; retrain or fetch it again")
    return model, digest
