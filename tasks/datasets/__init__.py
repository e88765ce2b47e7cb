"""Dataset adapters: each reads one layout exactly as its owners ship it and yields pair records.

To add one: a module with a class that follows :class:`tasks.datasets.records.Adapter`, and a line here.
"""

from __future__ import annotations

from pathlib import Path

from pngmodel.errors import UserError
from tasks.configuration import load_yaml
from tasks.datasets.folders import FolderAdapter, FolderRules
from tasks.datasets.records import Adapter
from tasks.datasets.sidd import SiddMedium, SiddSmall

ADAPTERS: dict[str, type[Adapter]] = {"sidd-small": SiddSmall, "sidd-medium": SiddMedium}


def adapter(name: str) -> Adapter:
    """An adapter by name, or paired folders by the path of a YAML rule file.

    Raises:
        UserError: listing the names.
    """
    if name in ADAPTERS:
        return ADAPTERS[name]()
    if Path(name).suffix in (".yaml", ".yml"):
        return FolderAdapter(load_yaml(name, FolderRules), name)
    raise UserError(
        f"adapter {name!r} does not exist; choose one of {', '.join(sorted(ADAPTERS))}, "
        "or give a YAML rule file for paired folders (see configs/datasets/)"
    )
