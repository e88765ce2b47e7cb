"""Datasets whose file names say it all: PolyU and CC15."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from pngmodel.errors import UserError
from tasks.datasets.naming import iso_of
from tasks.datasets.pairing import Pairing
from tasks.datasets.records import Found, PairRecord
from tasks.datasets.source import Source


@dataclass(frozen=True)
class _Named:
    """Pairs by one pattern over file names with groups pair, side, camera, iso, scene."""

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
            raise UserError(
                f"{source.url}: no {self.dataset} images found; expected {self.layout} as the owners ship them"
            )
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


POLYU = _Named(
    "polyu",
    "HKPolyU: non-commercial use, keep the notice",
    re.compile(
        r"(?:.*/)?(?P<pair>(?P<camera>[^_/]+)_(?P<aperture>[^_/]+)_(?P<shutter>[^_/]+)_(?P<iso>\d+)_"
        r"(?P<scene>[^/]+?)(?:_+(?P<crop>\d+))?)_(?P<side>real|mean)\.jpe?g",
        re.IGNORECASE,
    ),
    "CroppedImages/<camera>_<aperture>_<1/shutter>_<ISO>_<scene>_<k>_real.JPG and _mean.JPG",
)
"""PolyU: crops and originals, JPEG on both sides."""

CC15 = _Named(
    "cc15",
    "terms of the owners (Nam et al., CVPR 2016): not stated, research use",
    re.compile(
        r"(?:.*/)?(?P<pair>(?P<scene>(?P<camera>[a-z0-9]+)_iso(?P<iso>\d+)_\d+))_(?P<side>real|mean)\.png",
        re.IGNORECASE,
    ),
    "Real_ccnoise_denoised_part/5dmark3_iso3200_1_real.png and _mean.png",
    {"5dmark3": "Canon5D3", "d600": "NikonD600", "d800": "NikonD800"},
)
"""The 15 crops cut from Nam's scenes; ``_ours`` images there are somebody's denoising result and are not read."""
