"""What identifies a store and each of its shards before any pixel exists: digests of the plan.

The number of draws is no part of a store's identity: a corpus of more draws is the same one, continued.
"""

from __future__ import annotations

import hashlib
from typing import Any

from tasks.provenance import content_key


def plan_key(plan: dict[str, Any]) -> str:
    """Digest of a plan (plan.json, with or without its ``key``), whatever its number of draws."""
    content = {name: value for name, value in plan.items() if name != "key"}
    layout = dict(content["layout"])
    if layout.get("draws"):
        layout |= {"pairs": layout["pairs"] // layout["draws"], "draws": 1}
    return content_key(content | {"layout": layout})


def shard_key(key: str, index: int) -> str:
    """What shard ``index`` of the plan with this key has to say that it is: content and place, hexadecimal."""
    return hashlib.sha256(f"{key} {index}".encode()).hexdigest()
