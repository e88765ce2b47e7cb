"""SIDD Small and Medium, sRGB, in the published folder layout (MIT licence)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from pngmodel.errors import UserError
from tasks.datasets.adapters.pairing import Pairing
from tasks.datasets.records import Found, PairRecord, Unpaired
from tasks.datasets.source import Source

INSTANCE = re.compile(
    r"(?P<instance>\d{4})_(?P<scene>\d{3})_(?P<camera>GP|IP|S6|N6|G4)_(?P<iso>\d{5})_(?P<shutter>\d{5})"
    r"_(?P<kelvin>\d{4})_(?P<light>[LNH])"
)
LICENCE = "MIT (SIDD)"
_IMAGE = re.compile(r"(?:(?P<prefix>\d{4})_)?(?P<kind>GT|NOISY)_SRGB_(?P<frame>\d{3})\.PNG", re.IGNORECASE)


@dataclass(frozen=True)
class _Sidd:
    """Adapter of both sizes: Data/<instance>/[IIII_]{GT,NOISY}_SRGB_<frame>.PNG."""

    dataset: str
    prefixed: bool  # Medium repeats the instance number in the file name

    def find(self, source: Source) -> Found:
        """List the pairs; see :class:`tasks.datasets.records.Adapter`."""
        pairing, found = Pairing(), Found()
        for path in source.files:
            folder, _, name = path.rpartition("/")
            image, instance = _IMAGE.fullmatch(name), folder.rpartition("/")[2]
            if image is None or bool(image["prefix"]) != self.prefixed:
                found.ignored.append(path)
            elif INSTANCE.fullmatch(instance) is None:
                reason = f"the folder name is {instance!r}; expected <inst>_<scene>_<cam>_<ISO>_..."
                found.rejected.append(Unpaired(path, reason))
            elif self.prefixed and image["prefix"] != instance[:4]:
                reason = (
                    f"the file name has instance {image['prefix']}, but the folder {instance[:4]}; move or rename it"
                )
                found.rejected.append(Unpaired(path, reason))
            else:
                side = "clean" if image["kind"].upper() == "GT" else "noisy"
                pairing.add(f"{instance}_{image['frame']}", side, path)
        if not pairing:
            raise UserError(
                f"{source.url}: no {self.dataset} images found; expected Data/<instance>/"
                f"{'0001_' if self.prefixed else ''}NOISY_SRGB_010.PNG and GT_SRGB_010.PNG, as published"
            )
        for pair, noisy, clean in pairing.complete():
            found.records.append(self._record(pair, source.uri(noisy), source.uri(clean)))
        found.rejected.extend(pairing.rejected)
        return found

    def _record(self, pair: str, noisy: str, clean: str) -> PairRecord:
        facts = INSTANCE.match(pair)
        assert facts is not None  # find() accepts only matching folders
        return PairRecord(
            pair=pair,
            dataset=self.dataset,
            scene=facts["scene"],
            camera=facts["camera"],
            iso=int(facts["iso"]),
            noisy=noisy,
            clean=clean,
            licence=LICENCE,
            dtype="uint8",
        )


SIDD_SMALL = _Sidd("sidd_small", prefixed=False)
"""SIDD-Small sRGB: one pair per instance."""
SIDD_MEDIUM = _Sidd("sidd_medium", prefixed=True)
"""SIDD-Medium sRGB: two frames per instance, each aligned with its own ground truth."""
