"""Bundles: what was saved is loaded, and every kind of damage is named."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
import torch
from safetensors.torch import load_file, save_file

from pngmodel.bundle import bundle_config, bundle_digest, load_bundle, save_bundle, verify_bundle
from pngmodel.errors import IntegrityError, UserError
from pngmodel.network.model import NoiseModel
from pngmodel.network.presets import ModelConfig


@pytest.fixture
def bundle(model: NoiseModel, tmp_path: Path) -> Path:
    model.latent_mean.fill_(0.25)
    save_bundle(model, tmp_path / "one" / "bundle", training={"steps": 3}, card="# Card\n")
    return tmp_path / "one" / "bundle"


def redigest(folder: Path) -> None:
    """Write a correct digest over whatever is in the folder."""
    files = {n: hashlib.sha256((folder / n).read_bytes()).hexdigest() for n in ("config.json", "model.safetensors")}
    (folder / "digest.json").write_text(json.dumps({"digest": bundle_digest(files), "files": files}))


def edit_config(folder: Path, change: Callable[[dict], None]) -> None:
    config = json.loads((folder / "config.json").read_text())
    change(config)
    (folder / "config.json").write_text(json.dumps(config))
    redigest(folder)


def test_round_trip(bundle: Path, model: NoiseModel) -> None:
    loaded, digest = load_bundle(bundle)
    assert loaded.config == model.config
    assert digest == verify_bundle(bundle) == verify_bundle(f"file://{bundle}")
    assert loaded.state_dict().keys() == model.state_dict().keys()
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert float(loaded.latent_mean[0]) == 0.25
    assert bundle_config(bundle)["training"] == {"steps": 3}
    assert sorted(p.name for p in bundle.iterdir()) == ["README.md", "config.json", "digest.json", "model.safetensors"]


def test_digest_depends_on_weights_and_config_not_on_place_or_card(
    bundle: Path, model: NoiseModel, tmp_path: Path
) -> None:
    first = verify_bundle(bundle)
    assert save_bundle(model, tmp_path / "again", training={"steps": 3}, card="# Other card\n") == first
    assert save_bundle(model, tmp_path / "steps", training={"steps": 4}, card="") != first
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1
    assert save_bundle(model, tmp_path / "weights", training={"steps": 3}, card="") != first


def test_saving_over_a_bundle_replaces_it_and_leaves_nothing_else(bundle: Path, model: NoiseModel) -> None:
    loaded, _ = load_bundle(bundle)
    model.latent_mean.fill_(0.5)
    digest = save_bundle(model, bundle, training={}, card="")
    assert load_bundle(bundle)[1] == digest
    assert float(loaded.latent_mean[0]) == 0.25  # the model loaded before is not pulled along
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_a_model_trained_in_half_precision_is_stored_in_single(model: NoiseModel, tmp_path: Path) -> None:
    save_bundle(model.bfloat16(), tmp_path / "half", training={}, card="")
    loaded, _ = load_bundle(tmp_path / "half")
    assert {v.dtype for v in loaded.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("where", [0.1, 0.99])
def test_one_flipped_byte_is_found_and_named(bundle: Path, name: str, where: float) -> None:
    content = bytearray((bundle / name).read_bytes())
    content[int(where * len(content))] ^= 1
    (bundle / name).write_bytes(bytes(content))
    with pytest.raises(IntegrityError, match=f"{name}: the SHA-256 differs"):
        load_bundle(bundle)


def test_truncated_weights_are_found(bundle: Path) -> None:
    content = (bundle / "model.safetensors").read_bytes()
    (bundle / "model.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(IntegrityError, match=r"model.safetensors"):
        load_bundle(bundle)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_missing_file_is_named(bundle: Path, name: str) -> None:
    (bundle / name).unlink()
    with pytest.raises(IntegrityError, match=f"{name}: missing from the bundle"):
        load_bundle(bundle)


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "{",
        lambda text: "[]",
        lambda text: json.dumps(json.loads(text) | {"digest": "0" * 64}),
        lambda text: json.dumps(json.loads(text) | {"files": {}}),
    ],
)
def test_a_damaged_digest_is_named(bundle: Path, damage: Callable[[str], str]) -> None:
    path = bundle / "digest.json"
    path.write_text(damage(path.read_text()))
    with pytest.raises(IntegrityError, match=r"digest.json"):
        load_bundle(bundle)


def test_not_a_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for location in (tmp_path, tmp_path / "nothing", tmp_path / "file"):
        with pytest.raises(UserError, match="is not a model bundle") as raised:
            load_bundle(location)
        assert not isinstance(raised.value, IntegrityError)


@pytest.mark.parametrize("change", [{"format_version": 99}, {"format": "other"}])
def test_another_format_is_refused_with_what_is_read(bundle: Path, change: dict) -> None:
    edit_config(bundle, lambda config: config.update(change))
    with pytest.raises(UserError, match="expected 'pngnoise-model' version 1"):
        load_bundle(bundle)


def test_an_invalid_model_section_names_the_field(bundle: Path) -> None:
    edit_config(bundle, lambda config: config["model"].update(heads=7))
    with pytest.raises(UserError, match=r"(?s)config.json: key 'model' is invalid.*heads 7"):
        load_bundle(bundle)
    edit_config(bundle, lambda config: config["model"].update(heads=2, unheard_of=1))
    with pytest.raises(UserError, match=r"(?s)key 'model' is invalid.*unheard_of"):
        load_bundle(bundle)


def test_weights_of_another_size_are_refused(bundle: Path, smallest: Callable[..., ModelConfig]) -> None:
    edit_config(bundle, lambda config: config["model"].update(depth=1))
    with pytest.raises(IntegrityError, match=r"model.safetensors: does not match config.json"):
        load_bundle(bundle)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_non_finite_weights_are_refused(bundle: Path, value: float) -> None:
    weights = load_file(bundle / "model.safetensors")
    weights = {k: v.clone() for k, v in weights.items()}
    weights["transformer.head.weight"].view(-1)[3] = value
    save_file(weights, bundle / "model.safetensors")
    redigest(bundle)
    with pytest.raises(IntegrityError, match=r"model.safetensors: has NaN or infinite weights"):
        load_bundle(bundle)


def test_a_place_that_cannot_be_written_is_named(model: NoiseModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file/bundle: the model bundle cannot be written"):
        save_bundle(model, tmp_path / "file" / "bundle", training={}, card="")


def test_a_bundle_behind_http(tmp_path: Path, model: NoiseModel) -> None:
    digest = save_bundle(model, tmp_path / "bundle", training={}, card="")
    handler = partial(SimpleHTTPRequestHandler, directory=str(tmp_path))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}"
        assert load_bundle(f"{url}/bundle/")[1] == digest
        with pytest.raises(UserError, match=r"http://.*/nothing/digest.json: cannot be downloaded .*404"):
            load_bundle(f"{url}/nothing")
        server.shutdown()
    with pytest.raises(UserError, match="s3://bucket/x: pngmodel reads bundles from local folders and http"):
        load_bundle("s3://bucket/x")
