"""Nam et al. (CVPR 2016), full scenes: one MATLAB file per scene with ``img_noisy`` and ``img_mean``."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from pngmodel.errors import UserError
from tasks.datasets.adapters.naming import iso_of
from tasks.datasets.formats.mat_file import variables
from tasks.datasets.records import SIDES, Found, PairRecord, Unpaired
from tasks.datasets.source import Source

_NAMES = {"noisy": "img_noisy", "clean": "img_mean"}
_FACTS = re.compile(r"(?P<camera>.+?)[ _-]+ISO[ _-]*(?P<iso>\d+)(?:[ _-]+.*)?", re.IGNORECASE)


class Nam:
    """Adapter of MATLAB files, version 5 or 7.3. Camera and ISO are read from file or folder names if present."""

    def find(self, source: Source) -> Found:
        """List the scenes; see :class:`tasks.datasets.records.Adapter`."""
        found = Found()
        for path in source.files:
            if not path.lower().endswith(".mat"):
                found.ignored.append(path)
                continue
            try:
                held = variables(source.uri(path), _NAMES.values())
            except UserError as error:
                found.rejected.append(Unpaired(path, str(error)))
                continue
            if missing := set(_NAMES.values()) - set(held):
                found.rejected.append(Unpaired(path, f"has no variable {' and no '.join(sorted(missing))}"))
                continue
            noisy, clean = (held[_NAMES[side]].dtype for side in SIDES)
            if noisy != clean:
                # Do not guess the scale of either image.
                reason = (
                    f"img_noisy is {noisy}, but img_mean is {clean}; store both in one class, e.g. in MATLAB "
                    "img_mean = cast(round(img_mean), class(img_noisy)) if both have the same scale"
                )
                found.rejected.append(Unpaired(path, reason))
                continue
            stem = PurePosixPath(path).stem
            names = [stem, *reversed(PurePosixPath(path).parts[:-1])]
            facts = next((m for name in names if (m := _FACTS.fullmatch(name))), None)
            found.records.append(
                PairRecord(
                    pair=str(PurePosixPath(path).with_suffix("")),
                    dataset="nam",
                    scene=str(PurePosixPath(path).with_suffix("")),
                    camera=facts["camera"].replace(" ", "_") if facts else None,
                    iso=iso_of(facts["iso"]) if facts else None,
                    noisy=source.uri(path),
                    clean=source.uri(path),
                    noisy_part=_NAMES["noisy"],
                    clean_part=_NAMES["clean"],
                    licence="terms of the owners (Nam et al., CVPR 2016): not stated, research use",
                )
            )
        if not found.records and not found.rejected:
            raise UserError(f"{source.url}: has no MATLAB files; expected one per scene with img_noisy and img_mean")
        return found
