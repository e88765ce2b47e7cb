"""Signed digests: who vouches for a store, corpus or model. Optional: a digest says what it is and not who made it.

``signature.json`` lies beside the commit record and belongs to no digest: signing changes nothing that is signed.
"""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import BaseModel, ConfigDict, Field

from pngmodel.errors import IntegrityError, UserError
from tasks.corpus.inspection import resolved, verify
from tasks.corpus.parameters import VerifyParameters
from tasks.runtime.clusters import open_cluster
from tasks.runtime.steps import step
from tasks.stores.commits import SIGNATURE
from tasks.stores.io.filesystem import encode_json, exists, join, read_bytes, read_json, sha256, write_json
from tasks.stores.kinds import COMMITS, kind_of

PASSWORD = "PNGNOISE_SIGNING_PASSWORD"
"""Of the private key, where it has one."""
_MAKE_ONE = "openssl genpkey -algorithm ed25519 -out key.pem; openssl pkey -in key.pem -pubout -out trusted.pem"


class Signature(BaseModel):
    """signature.json."""

    model_config = ConfigDict(extra="forbid")

    format: Literal["pngnoise-signature"] = "pngnoise-signature"
    format_version: Literal[1] = 1
    kind: str = Field(description="of what is signed: corpus, model bundle, ...")
    digest: str = Field(description="its digest")
    record_sha256: str = Field(description="sha256, hexadecimal, of its commit record, which holds those of all files")
    key: str = Field(description="sha256, hexadecimal, of the public key (DER)")
    signature: str = Field(description="Ed25519 over the JSON of kind, digest and record_sha256, base64")


def sign(location: str, key: Path) -> dict[str, Any]:
    """Check every byte at ``location``, then write its signature by a private key (Ed25519, PEM).

    Raises:
        UserError: no such key. IntegrityError: what lies there is damaged.
    """
    private, location = _private(key), resolved(location)
    signed = _content(location)
    found = Signature(
        **signed,
        key=_fingerprint(private.public_key()),
        signature=base64.b64encode(private.sign(encode_json(signed))).decode(),
    )
    write_json(join(location, SIGNATURE), found.model_dump(mode="json"))
    return found.model_dump(include={"kind", "digest", "key"}) | {"location": location}


def verify_store(
    parameters: VerifyParameters, progress: Callable[[int, int], None] = lambda done, total: None
) -> dict[str, Any]:
    """Check a store as :func:`tasks.corpus.inspection.verify`, and its signature if ``trusted`` names keys."""
    with open_cluster(parameters.cluster) as cluster:
        options = {"cluster": cluster, "sample": parameters.sample, "seed": parameters.seed, "progress": progress}
        if parameters.trusted:
            return verify_signed(parameters.location, [Path(key) for key in parameters.trusted], **options)
        return verify(parameters.location, **options)  # type: ignore[arg-type]


def verify_signed(location: str, trusted: Sequence[Path], **options: Any) -> dict[str, Any]:
    """Check every byte at ``location``, and that one of the ``trusted`` public keys (PEM) signed it.

    Returns:
        The result of :func:`tasks.corpus.inspection.verify`, which gets ``options``, and the key that signed.

    Raises:
        UserError: the store is not signed, or not by one of these keys.
        IntegrityError: the store is damaged, or differs from what was signed.
    """
    keys = {_fingerprint(public): public for public in map(_public, trusted)}
    location = resolved(location)
    facts = verify(location, **options)
    target = join(location, SIGNATURE)
    if not exists(target):
        raise UserError(
            f"{target}: missing; {location} is not signed: ask for a signature, or verify it without --trusted"
        )
    try:
        found = Signature.model_validate(read_json(target))
        signature = base64.b64decode(found.signature, validate=True)
    except ValueError as error:  # pydantic's and base64's
        raise IntegrityError(f"{target}: is no signature ({error})") from None
    if found.key not in keys:
        raise UserError(f"{target}: is by the key {found.key[:16]}, which is none of those that are trusted")
    signed = _content(location, facts)
    try:
        keys[found.key].verify(signature, encode_json(signed))
    except InvalidSignature:
        raise IntegrityError(
            f"{target}: {location} is not what was signed; fetch it again or ask who signed it"
        ) from None
    return facts | {"signed_by": found.key}


def _content(location: str, facts: dict[str, Any] | None = None) -> dict[str, str]:
    """What is signed of a place, every byte of which was checked."""
    facts = facts or verify(location)
    record = read_bytes(join(location, COMMITS[kind_of(location)]))
    return {"kind": str(facts["kind"]), "digest": str(facts["digest"]), "record_sha256": sha256(record)}


def _private(path: Path) -> Ed25519PrivateKey:
    password = os.environ.get(PASSWORD)
    try:
        key = load_pem_private_key(path.read_bytes(), password.encode() if password else None)
    except OSError as error:
        raise UserError(f"{path}: the key cannot be read ({error}); make one: {_MAKE_ONE}") from None
    except (ValueError, TypeError, UnsupportedAlgorithm):
        raise UserError(f"{path}: is no private key in PEM, or {PASSWORD} is not its password; {_MAKE_ONE}") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise UserError(f"{path}: is no Ed25519 key; make one: {_MAKE_ONE}")
    return key


def _public(path: Path) -> Ed25519PublicKey:
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise UserError(f"{path}: no public key in PEM can be read there ({error}); {_MAKE_ONE}") from None
    if not isinstance(key, Ed25519PublicKey):
        raise UserError(f"{path}: is no Ed25519 key; make one: {_MAKE_ONE}")
    return key


def _fingerprint(key: Ed25519PublicKey) -> str:
    return hashlib.sha256(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


task_verify_store = step("verify")(verify_store)
