"""The table of fuzz targets: every reader of the product that meets files which others may have written."""

from __future__ import annotations

from tests.faults.fuzz.sourcetargets import SOURCES
from tests.faults.fuzz.storetargets import STORES, Build

TARGETS: dict[str, Build] = {**SOURCES, **STORES}
