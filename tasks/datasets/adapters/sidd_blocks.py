"""Block sets of SIDD, sRGB: validation and benchmark (40 images of 32 blocks), SIDD+ (1024 blocks); MIT licence.

Reads MATLAB files whose variable has the name of the file, or folders of PNG files.
"""

from __future__ import annotations

import itertools
import math
import re
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from pngmodel.errors import UserError
from tasks.datasets.adapters.pairing import Pairing
from tasks.datasets.adapters.sidd import LICENCE
from tasks.datasets.adapters.sidd_labels import labelled
from tasks.datasets.formats.mat_file import MAX_BLOCKS, Variable, block_part, variables
from tasks.datasets.records import Found, PairRecord
from tasks.datasets.source import Source

_DTYPE = "uint8"


@dataclass(frozen=True)
class _Blocks:
    """Adapter of a block set, with the names of its MATLAB files and the pattern of its PNG files."""

    dataset: str
    split: str
    noisy: str
    clean: str | None
    axes: int  # leading axes: (image, block) or (block,)
    png: re.Pattern[str] | None
    layout: str
    labels: str | None = None  # published list of instances of this set

    def find(self, source: Source) -> Found:
        """List the blocks; see :class:`tasks.datasets.records.Adapter`."""
        mats = [name for name in (self.noisy, self.clean) if name is not None]
        paths = {name: path for name in mats if (path := _only(source, f"{name}.mat")) is not None}
        if paths:
            if missing := [name for name in mats if name not in paths]:
                raise UserError(
                    f"{source.url}: has {next(iter(paths))}.mat, but {missing[0]}.mat is missing; add that file"
                )
            found = self._from_mats(source, paths)
        else:
            found = self._from_png(source)
        if not found.records and not found.rejected:
            raise UserError(f"{source.url}: no {self.dataset} found; expected {self.layout}, as published")
        labels = _only(source, self.labels) if self.labels is not None else None
        return replace(found, records=labelled(found.records, source.uri(labels))) if labels else found

    def _from_mats(self, source: Source, paths: dict[str, str]) -> Found:
        arrays = {name: _blocks_of(source.uri(path), name, self.axes) for name, path in paths.items()}
        shapes = {a.shape for a in arrays.values()}
        if len(shapes) != 1:
            described = ", ".join(f"{name} is {a.shape}" for name, a in arrays.items())
            raise UserError(
                f"{source.url}: the two arrays have different shapes: {described}; download both files again"
            )
        noisy, clean = arrays[self.noisy], arrays[self.clean] if self.clean is not None else None
        records = []
        for index in itertools.product(*map(range, noisy.shape[: self.axes])):
            pair = "-".join(f"{i:04d}" for i in index)
            record = self._record(
                pair, source.uri(paths[self.noisy]), source.uri(paths[self.clean]) if self.clean else None
            )
            clean_part = block_part(clean.name, *index) if clean is not None else ""
            records.append(replace(record, noisy_part=block_part(noisy.name, *index), clean_part=clean_part))
        return Found(records, ignored=[p for p in source.files if p not in paths.values()])

    def _from_png(self, source: Source) -> Found:
        pairing, found = Pairing(), Found()
        for path in source.files if self.png is not None else []:
            match = self.png.fullmatch(path) if self.png is not None else None
            if match is None:
                found.ignored.append(path)
                continue
            pairing.add(match["pair"], "noisy" if match["noisy"] else "clean", path)
        for pair, noisy, clean in pairing.complete():
            found.records.append(self._record(pair, source.uri(noisy), source.uri(clean)))
        found.rejected.extend(pairing.rejected)
        return found

    def _record(self, pair: str, noisy: str, clean: str | None) -> PairRecord:
        # The scenes of SIDD+ are not published: use a single scene, so that splits by scene never divide the set.
        scene = f"{self.split}-{pair.split('-')[0]}" if self.axes == 2 else self.dataset
        return PairRecord(
            pair=pair,
            dataset=self.dataset,
            scene=scene,
            camera=None,
            iso=None,
            noisy=noisy,
            clean=clean,
            licence=LICENCE,
            split=self.split,
            dtype=_DTYPE,
        )


def _blocks_of(uri: str, name: str, axes: int) -> Variable:
    arrays = variables(uri)
    found = arrays.get(name) or next((a for a in arrays.values() if len(a.shape) == axes + 3), None)
    if found is None or len(found.shape) != axes + 3:
        present = ", ".join(f"{a.name} {a.shape}" for a in arrays.values()) or "no arrays"
        raise UserError(f"{uri}: has no array {name} with {axes + 3} axes; it has {present}; download the file again")
    if math.prod(found.shape[:axes]) > MAX_BLOCKS:
        raise UserError(f"{uri}: {name} has shape {found.shape}; at most {MAX_BLOCKS} blocks are supported")
    if found.dtype != _DTYPE:
        raise UserError(
            f"{uri}: {found.name} is {found.dtype}, but the published sRGB file is {_DTYPE}; download the sRGB file "
            "again"
        )
    return found


def _only(source: Source, name: str) -> str | None:
    """Return the path of the file with this name in any folder of the source; None if there is none."""
    paths = [path for path in source.files if PurePosixPath(path).name.lower() == name.lower()]
    if len(paths) > 1:
        raise UserError(f"{source.url}: {paths[0]} and {paths[1]} have the same name; keep only one of them")
    return paths[0] if paths else None


SIDD_VALIDATION = _Blocks(
    "sidd_validation",
    "validation",
    "ValidationNoisyBlocksSrgb",
    "ValidationGtBlocksSrgb",
    2,
    re.compile(r"(?:.*/)?(?:(?P<noisy>input)|groundtruth)/(?P<pair>\d{4}-\d{4})\.png", re.IGNORECASE),
    "ValidationNoisyBlocksSrgb.mat and ValidationGtBlocksSrgb.mat, or input/ and groundtruth/ with IIII-BBBB.png",
    "validation_label.csv",
)
SIDD_BENCHMARK = _Blocks(
    "sidd_benchmark", "test", "BenchmarkNoisyBlocksSrgb", None, 2, None, "BenchmarkNoisyBlocksSrgb.mat"
)
SIDD_PLUS = _Blocks(
    "sidd_plus",
    "validation",
    "siddplus_valid_noisy_srgb",
    "siddplus_valid_gt_srgb",
    1,
    re.compile(
        r"(?:.*/)?(?:(?P<noisy>[^/]*noisy[^/]*|input)|[^/]*(?:gt|clean|groundtruth)[^/]*)/(?P<pair>\d{4})\.png",
        re.IGNORECASE,
    ),
    "siddplus_valid_noisy_srgb.mat and siddplus_valid_gt_srgb.mat, or a noisy and a gt folder of 0000.PNG",
)
