"""DND, sRGB: HDF5 files of whole images, of which 20 boxes each are evaluated. The ground truth is not public."""

from __future__ import annotations

import re

from pngmodel.errors import UserError
from tasks.datasets.formats.mat_file import box_part, boxes
from tasks.datasets.records import Found, PairRecord, Unpaired
from tasks.datasets.source import Source

_IMAGE = re.compile(r"(?:.*/)?images_srgb/(?P<number>\d{4})\.mat")
_INFO = re.compile(r"(?:.*/)?info\.mat")
_LAYOUT = "info.mat and images_srgb/0001.mat .."


class Dnd:
    """Adapter of the noisy boxes; ids are <image>_<box>, both counted from 1 as in submissions."""

    def find(self, source: Source) -> Found:
        """List the boxes; see :class:`tasks.datasets.records.Adapter`."""
        found = Found(ignored=[p for p in source.files if not _IMAGE.fullmatch(p) and not _INFO.fullmatch(p)])
        infos = [p for p in source.files if _INFO.fullmatch(p)]
        if len(infos) > 1:
            raise UserError(f"{source.url}: {infos[0]} and {infos[1]} have the same name; keep only one of them")
        info = infos[0] if infos else None
        images: dict[int, str] = {}
        for path in source.files:
            number = int(m["number"]) if (m := _IMAGE.fullmatch(path)) else None
            if number in images:
                raise UserError(f"{source.url}: {images[number]} and {path} are the same image; keep only one of them")
            if number is not None:
                images[number] = path
        if info is None or not images:
            missing = "info.mat" if info is None else "images_srgb/0001.mat"
            raise UserError(f"{source.url}: {missing} is missing; expected {_LAYOUT}, as published")
        windows = boxes(source.uri(info), "info", "boundingboxes")
        for number, path in sorted(images.items()):
            if not 1 <= number <= len(windows):
                raise UserError(
                    f"{source.uri(info)}: has boxes for {len(windows)} images, but {path} is image {number}; download "
                    "the dataset again"
                )
            for k, (y0, x0, y1, x1) in enumerate(windows[number - 1], 1):  # counted from 1, end included
                pair = f"{number:04d}_{k:02d}"
                if not (1 <= y0 < y1 and 1 <= x0 < x1):
                    reason = (
                        f"box {k} of info.mat is {(y0, x0, y1, x1)}; expected (y0, x0, y1, x1) with 1 <= y0 < y1 and "
                        "1 <= x0 < x1"
                    )
                    found.rejected.append(Unpaired(pair, reason))
                    continue
                found.records.append(
                    PairRecord(
                        pair=pair,
                        dataset="dnd",
                        scene=f"{number:04d}",
                        camera=None,
                        iso=None,
                        noisy=source.uri(path),
                        noisy_part=box_part("InoisySRGB", y0 - 1, y1, x0 - 1, x1),
                        clean=None,
                        licence="terms of the owners (DND, TU Darmstadt)",
                        split="test",
                    )
                )
        return found
