"""Dataset adapters: each reads the layout of one dataset exactly as published, and returns pair records.

To add one, write a module with an object that implements :class:`tasks.datasets.records.Adapter`, and register it in
:data:`ADAPTERS`.
"""

from __future__ import annotations

from pathlib import Path

from pngmodel.errors import UserError
from tasks.datasets.adapters.cc15 import CC15
from tasks.datasets.adapters.clean import Clean
from tasks.datasets.adapters.dnd import Dnd
from tasks.datasets.adapters.folders import FolderAdapter, FolderRules, Folders
from tasks.datasets.adapters.nam import Nam
from tasks.datasets.adapters.polyu import POLYU
from tasks.datasets.adapters.sidd import SIDD_MEDIUM, SIDD_SMALL
from tasks.datasets.adapters.sidd_blocks import SIDD_BENCHMARK, SIDD_PLUS, SIDD_VALIDATION
from tasks.datasets.adapters.tiff_stacks import Tiffs
from tasks.datasets.records import Adapter
from tasks.runtime.configuration import load_yaml

ADAPTERS: dict[str, Adapter] = {
    "sidd-small": SIDD_SMALL,
    "sidd-medium": SIDD_MEDIUM,
    "sidd-validation": SIDD_VALIDATION,
    "sidd-benchmark": SIDD_BENCHMARK,
    "sidd-plus": SIDD_PLUS,
    "polyu": POLYU,
    "nam": Nam(),
    "cc15": CC15,
    "dnd": Dnd(),
    "folders": Folders(),
    "tiff": Tiffs(),
    "clean": Clean(),
}


def adapter(name: str) -> Adapter:
    """Return an adapter by name, or an adapter of paired folders by the path of a YAML rule file.

    Raises:
        UserError: There is no such adapter; lists the names.
    """
    if name in ADAPTERS:
        return ADAPTERS[name]
    if Path(name).suffix in (".yaml", ".yml"):
        return FolderAdapter(load_yaml(name, FolderRules), name)
    raise UserError(
        f"adapter {name!r} does not exist; choose one of {', '.join(sorted(ADAPTERS))}, "
        "or a YAML rule file for paired folders (see configs/datasets/)"
    )
