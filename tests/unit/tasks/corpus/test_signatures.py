"""Signatures: by openssl's own keys, of what was signed and nothing else."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from torch import nn

from pngmodel.bundle import write_bundle
from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.inspection import verify
from tasks.corpus.maintenance import orphans
from tasks.corpus.plan import CorpusParameters
from tasks.corpus.signatures import PASSWORD, SIGNATURE, sign, verify_signed
from tasks.models.registry import add_version, check_files
from tasks.stores.model_registry import Registered, Version


def keys(folder: Path, name: str, password: bytes | None = None) -> tuple[Path, Path]:
    key = Ed25519PrivateKey.generate()
    locked = BestAvailableEncryption(password) if password else NoEncryption()
    private, public = folder / f"{name}.pem", folder / f"{name}.pub.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


@pytest.fixture
def bundle(tmp_path: Path) -> str:
    folder = tmp_path / "bundle"
    write_bundle(nn.Linear(2, 2), folder, kind="pngnoise-model", model={"size": 2}, training={}, card="# card\n")
    return str(folder)


def test_a_signed_bundle_is_trusted_by_whom_has_the_key(bundle: str, tmp_path: Path) -> None:
    (private, public), (_, stranger) = keys(tmp_path, "ours"), keys(tmp_path, "stranger")
    before = verify(bundle)
    with pytest.raises(UserError, match=r"signature\.json: missing; .* is not signed"):
        verify_signed(bundle, [public])
    signed = sign(bundle, private)
    assert signed["digest"] == before["digest"]
    assert verify(bundle) == before
    assert verify_signed(bundle, [stranger, public]) == before | {"signed_by": signed["key"]}
    with pytest.raises(UserError, match="none of those that are trusted"):
        verify_signed(bundle, [stranger])


def test_what_was_not_signed_is_refused(bundle: str, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "ours")
    sign(bundle, private)
    signature = (tmp_path / "bundle" / SIGNATURE).read_bytes()
    write_bundle(
        nn.Linear(2, 2), tmp_path / "bundle", kind="pngnoise-model", model={"size": 2}, training={}, card="# other\n"
    )
    (tmp_path / "bundle" / SIGNATURE).write_bytes(signature)
    assert verify(bundle)["verified"]  # whole, and somebody else's
    with pytest.raises(IntegrityError, match="is not what was signed"):
        verify_signed(bundle, [public])
    for broken in (
        b"{",
        b"{}",
        *(json.dumps(json.loads(signature) | {"signature": text}).encode() for text in ("???", "é")),
    ):
        (tmp_path / "bundle" / SIGNATURE).write_bytes(broken)
        with pytest.raises(IntegrityError, match=r"signature\.json"):
            verify_signed(bundle, [public])


def test_a_patch_store_is_signed_with_all_that_its_record_lists(patches: str, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "ours")
    sign(patches, private)
    assert verify_signed(patches, [public])["verified"]
    record = json.loads((Path(patches) / "store.json").read_text())
    shard = Path(patches) / record["parts"][0]["part"]
    shard.write_bytes(shard.read_bytes() + b"x")
    with pytest.raises(IntegrityError, match=shard.name):
        verify_signed(patches, [public])


def test_keys_of_openssl_and_with_passwords(bundle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key, trusted = str(tmp_path / "key.pem"), str(tmp_path / "trusted.pem")
    subprocess.run(["openssl", "genpkey", "-algorithm", "ed25519", "-out", key], check=True)
    subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-out", trusted], check=True)
    sign(bundle, Path(key))
    assert verify_signed(bundle, [Path(trusted)])["verified"]
    private, public = keys(tmp_path, "locked", b"secret")
    with pytest.raises(UserError, match=PASSWORD):
        sign(bundle, private)
    monkeypatch.setenv(PASSWORD, "secret")
    sign(bundle, private)
    assert verify_signed(bundle, [public])["verified"]


def _rsa(folder: Path) -> Path:
    path = folder / "rsa.pem"
    key = generate_private_key(public_exponent=65537, key_size=2048)
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def _text(folder: Path) -> Path:
    (folder / "text.pem").write_text("no key")
    return folder / "text.pem"


@pytest.mark.parametrize("make", [_rsa, _text, lambda folder: folder / "missing.pem"], ids=["RSA", "text", "missing"])
def test_other_keys_are_refused_with_the_remedy(make: Callable[[Path], Any], bundle: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="openssl genpkey -algorithm ed25519"):
        sign(bundle, make(tmp_path))
    with pytest.raises(UserError, match="openssl genpkey -algorithm ed25519"):
        verify_signed(bundle, [make(tmp_path)])


def test_a_name_in_a_registry_is_what_it_means(bundle: str, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "ours")
    sign(bundle, private)
    add_version(bundle, str(tmp_path / "models" / "small"))
    name = f"{tmp_path}/models/small@1"
    assert verify_signed(name, [public])["verified"]
    sign(name, private)  # others may vouch for it, too; the version stays what it was
    add_version(bundle, str(tmp_path / "models" / "small"))
    assert verify_signed(name, [public])["verified"]
    check_files(*_registered(name))


def _registered(name: str) -> tuple[Registered, Version]:
    location, _, number = name.rpartition("@")
    registered = Registered(*location.rsplit("/", 1))
    return registered, registered.version(int(number))


def test_a_signature_is_no_orphan(made: Callable, patches: str, folders: tuple[Path, Path], tmp_path: Path) -> None:
    locations = {"output": str(tmp_path / "c"), "references": patches, "clean": str(folders[0] / "clean")}
    published, _ = made(CorpusParameters(model="heteroscedastic", crop=32, shard=64, alias="latest", **locations))
    private, public = keys(tmp_path, "ours")
    sign(str(tmp_path / "latest"), private)
    assert orphans(published.url) == []
    assert verify_signed(published.url, [public])["verified"]
