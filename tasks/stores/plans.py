"""Plans: what is written first of anything that is made in pieces, and what identifies it before any piece exists.

The number of draws is no part of a store's identity: a corpus of more draws is the same one, continued.
"""

from __future__ import annotations

import hashlib
from typing import Any

from pngmodel.errors import UserError
from tasks.runtime.provenance import content_key
from tasks.stores.io.filesystem import create_bytes, encode_json, exists, join, read_json
from tasks.stores.io.listing import list_files

_SHOWN = 3


def plan_key(plan: dict[str, Any]) -> str:
    """Digest of a plan (plan.json, with or without its ``key``), whatever its number of draws."""
    content = {name: value for name, value in plan.items() if name != "key"}
    layout = dict(content["layout"])
    if layout.get("repeats"):
        layout |= {"pairs": layout["pairs"] // layout["repeats"], "repeats": 1}
    return content_key(content | {"layout": layout})


def shard_key(key: str, index: int) -> str:
    """What shard ``index`` of the plan with this key has to say that it is: content and place, hexadecimal."""
    return hashlib.sha256(f"{key} {index}".encode()).hexdigest()


def begin(url: str, name: str, plan: dict[str, Any], key: str) -> dict[str, Any] | None:
    """Write the plan ``name`` at ``url``, or accept the one that lies there if it has this key; returns that one.

    Args:
        url: folder or prefix.
        name: the plan's file.
        plan: its content, with ``kind``; its key is put in.
        key: what identifies what is made.

    Raises:
        UserError: the place holds something else that was begun, or files that were not.
    """
    location = join(url, name)
    if not exists(location):
        found = [f for f in list_files(url) if not f.rpartition("/")[2].startswith(".")]
        # Another process may have begun the same since the first look. Of two that do so at once one creates the plan.
        if found and not exists(location):
            raise UserError(
                f"{url}: is not empty (it holds {', '.join(found[:_SHOWN])}) and is no {plan['kind']}; choose an empty "
                "output"
            )
        if not found and create_bytes(location, encode_json(plan | {"key": key})):
            return None
    there = read_json(location)
    if there.get("key") == key:
        return there
    if there.get("kind") != plan["kind"]:
        raise UserError(f"{url}: holds a {there.get('kind', 'store')} and no {plan['kind']}; choose another output")
    raise UserError(
        f"{url}: holds another {plan['kind']}; it differs in {_differences(there, plan)}. Choose another output, or "
        "delete that folder if it is not needed"
    )


def _differences(there: dict[str, Any], asked: dict[str, Any]) -> str:
    """The first few keys that differ, with both values."""
    ours, theirs = _flat(asked), _flat(there)
    differing = [k for k in sorted(ours | theirs) if k != "key" and ours.get(k) != theirs.get(k)]
    words = (f"{k} ({_short(theirs.get(k))} there, {_short(ours.get(k))} asked for)" for k in differing[:_SHOWN])
    return ", ".join(words) or "its key"


def _flat(content: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, value in content.items():
        out |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return out


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
