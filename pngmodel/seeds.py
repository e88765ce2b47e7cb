"""Seeds of random streams, derived from names and numbers and independent of the order of execution."""

from __future__ import annotations

import hashlib
import operator

import torch

_SEED_BITS = 63  # torch.Generator expects a signed 64-bit seed


def derive_seed(*parts: int | str) -> int:
    """Return a seed in [0, 2**63) that depends only on ``parts``.

    Types and lengths of the parts are hashed too, so that ``derive_seed(1, 23)`` and ``derive_seed(12, 3)`` differ. The
    value is the same on every machine and in every Python process.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in parts:
        # NumPy and torch integers are treated as Python integers.
        text = (f"str:{part}" if isinstance(part, str) else f"int:{operator.index(part)}").encode()
        digest.update(len(text).to_bytes(4, "little") + text)
    return int.from_bytes(digest.digest(), "little") >> (64 - _SEED_BITS)


def generator(*parts: int | str) -> torch.Generator:
    """Return a CPU generator seeded with :func:`derive_seed`.

    Random numbers are always drawn on the CPU and then moved, so that samples do not depend on the device.
    """
    return torch.Generator(device="cpu").manual_seed(derive_seed(*parts))
