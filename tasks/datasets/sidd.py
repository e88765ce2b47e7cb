"""SIDD Small and Medium, sRGB, in the owners' folder layout (licence MIT)."""

from __future__ import annotations

import re

from pngmodel.errors import UserError
from tasks.datasets.records import Found, PairRecord, Unpaired
from tasks.stores.filesystem import join, list_files

_INSTANCE = re.compile(
    r"(?P<instance>\d{4})_(?P<scene>\d{3})_(?P<camera>GP|IP|S6|N6|G4)_(?P<iso>\d{5})_(?P<shutter>\d{5})"
    r"_(?P<kelvin>\d{4})_(?P<light>[LNH])$"
)
_IMAGE = re.compile(r"(?:(?P<prefix>\d{4})_)?(?P<kind>GT|NOISY)_SRGB_(?P<frame>\d{3})\.PNG$", re.IGNORECASE)
_LICENCE = "MIT (SIDD)"


class _Sidd:
    """What both sizes share: Data/<instance>/[IIII_]{GT,NOISY}_SRGB_<frame>.PNG."""

    dataset: str
    prefixed: bool  # Medium repeats the instance number in the file name

    def find(self, source: str) -> Found:
        """List the pairs; see :class:`tasks.datasets.records.Adapter`."""
        sides: dict[tuple[str, str], dict[str, str]] = {}
        rejected: list[Unpaired] = []
        for path in list_files(source):
            folder, _, name = path.rpartition("/")
            image = _IMAGE.match(name)
            if image is None or bool(image["prefix"]) != self.prefixed:
                continue
            instance = folder.rpartition("/")[2]
            if _INSTANCE.match(instance) is None:
                rejected.append(Unpaired(path, f"folder name {instance!r} is not <inst>_<scene>_<cam>_<ISO>_..."))
                continue
            found, kind = sides.setdefault((instance, image["frame"]), {}), image["kind"].upper()
            if kind in found:
                rejected.append(Unpaired(path, f"a second {kind} image of {instance}; {found[kind]} is used"))
                continue
            found[kind] = path
        if not sides:
            raise UserError(
                f"{source}: no {self.dataset} images found; expected Data/<instance>/"
                f"{'0001_' if self.prefixed else ''}NOISY_SRGB_010.PNG and GT_SRGB_010.PNG as the owners ship them"
            )
        records = []
        for (instance, frame), found in sorted(sides.items()):
            pair = f"{instance}_{frame}"
            if set(found) != {"GT", "NOISY"}:
                missing = ({"GT", "NOISY"} - set(found)).pop()
                rejected.append(Unpaired(pair, f"{missing} image is missing beside {next(iter(found.values()))}"))
                continue
            records.append(self._record(source, instance, pair, found))
        return Found(records, rejected)

    def _record(self, source: str, instance: str, pair: str, found: dict[str, str]) -> PairRecord:
        facts = _INSTANCE.match(instance)
        assert facts is not None  # find() took only matching folders
        return PairRecord(
            pair=pair,
            dataset=self.dataset,
            scene=facts["scene"],
            camera=facts["camera"],
            iso=int(facts["iso"]),
            noisy=join(source, found["NOISY"]),
            clean=join(source, found["GT"]),
            licence=_LICENCE,
        )


class SiddSmall(_Sidd):
    """SIDD-Small sRGB: one pair per instance."""

    dataset, prefixed = "sidd_small", False


class SiddMedium(_Sidd):
    """SIDD-Medium sRGB: two frames per instance, both aligned with their own ground truth."""

    dataset, prefixed = "sidd_medium", True
