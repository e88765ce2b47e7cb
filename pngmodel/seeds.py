"""Seeds per sample: every random stream is a pure function of names and numbers, never of order."""

from __future__ import annotations

import hashlib
import operator

import torch

_SEED_BITS = 63  # torch.Generator takes a signed 64-bit seed


def derive_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) that depends on all parts and on nothing else.

    The parts are joined unambiguously (type and length are hashed too), so ``derive_seed(1, 23)``
    and ``derive_seed(12, 3)`` differ, and the value is the same on every machine and Python run.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        # NumPy and torch integers count as the Python integer of their value.
        text = (f"str:{part}" if isinstance(part, str) else f"int:{operator.index(part)}").encode()
        digest.update(len(text).to_bytes(4, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> (64 - _SEED_BITS)


def generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded with :func:`derive_seed`.

    Random numbers are always drawn on the CPU and then moved, so that a sample's noise does not
    depend on the device that computes it.
    """
    return torch.Generator(device="cpu").manual_seed(derive_seed(*parts))
