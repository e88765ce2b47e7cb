"""Adapter of datasets whose file names contain all metadata."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pngmodel.errors import UserError
from tasks.datasets.adapters.naming import iso_of
from tasks.datasets.adapters.pairing import Pairing
from tasks.datasets.records import Found, PairRecord
from tasks.datasets.source import Source


@dataclass(frozen=True)
class NamedPairs:
    """Adapter with one regular expression for paths, with the groups pair, side, camera, iso and scene."""

    dataset: str
    licence: str
    pattern: re.Pattern[str]
    layout: str
    cameras: dict[str, str] = field(default_factory=dict)

    def find(self, source: Source) -> Found:
        """List the pairs; see :class:`tasks.datasets.records.Adapter`."""
        pairing, found = Pairing(), Found()
        facts: dict[str, re.Match[str]] = {}
        for path in source.files:
            match = self.pattern.fullmatch(path)
            if match is None:
                found.ignored.append(path)
                continue
            key = ("original/" if "originalimages" in path.lower() else "") + match["pair"]
            facts[key] = match
            pairing.add(key, "noisy" if match["side"].lower() == "real" else "clean", path)
        if not pairing:
            raise UserError(f"{source.url}: no {self.dataset} images found; expected {self.layout}, as published")
        for key, noisy, clean in pairing.complete():
            found.records.append(
                PairRecord(
                    pair=key,
                    dataset=self.dataset,
                    scene=facts[key]["scene"],
                    camera=self.cameras.get(facts[key]["camera"].lower(), facts[key]["camera"]),
                    iso=iso_of(facts[key]["iso"]),
                    noisy=source.uri(noisy),
                    clean=source.uri(clean),
                    licence=self.licence,
                    dtype="uint8",
                )
            )
        found.rejected.extend(pairing.rejected)
        return found
