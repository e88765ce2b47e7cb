"""Targets: everything that datasets of strangers consist of, and the YAML files beside them."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from functools import partial
from itertools import count
from pathlib import Path

from pngmodel.errors import UserError
from tasks.datasets.adapters import ADAPTERS, adapter
from tasks.datasets.adapters.clean import Clean
from tasks.datasets.adapters.dnd import Dnd
from tasks.datasets.adapters.folders import FolderAdapter, FolderRules
from tasks.datasets.adapters.sidd_labels import labelled
from tasks.datasets.formats import mat_file as matfile
from tasks.datasets.formats import tiff_pages as tiffpages
from tasks.datasets.formats.archives import opened, read_whole
from tasks.datasets.formats.image_file import decode
from tasks.datasets.formats.pixels import read_pixels
from tasks.datasets.records import PairRecord
from tasks.datasets.source import Source
from tests.faults.fuzz import ground as make
from tests.faults.fuzz.ground import Ground
from tests.faults.fuzz.target import Target, every

CONFIGS = Path(__file__).resolve().parents[3] / "configs"
Build = Callable[[Ground], Target]
_NAMES = [
    "noisy/a.png",
    "clean/a.png",
    "Data/0001_001_S6_00100_00060_3200_L/NOISY_SRGB_010.PNG",
    "Data/0001_001_S6_00100_00060_3200_L/GT_SRGB_010.PNG",
    "Data/0002_003_G4_01600_00350_3200_N/0002_NOISY_SRGB_010.PNG",
    "CroppedImages/Canon5D2_5_160_3200_plug_1_real.JPG",
    "CroppedImages/Canon5D2_5_160_3200_plug_1_mean.JPG",
    "images_srgb/0001.mat",
    "info.mat",
    "ValidationNoisyBlocksSrgb.mat",
    "C500/GT/a.png",
    "C500/Noisy/a_real.png",
    "dataset.yaml",
    "zarr/zarr.json",
]


def _file(ground: Ground, name: str) -> Callable[[bytes], Path]:
    """Writes an input under this name. The inode differs each time, as with files that are fetched anew."""
    folder, number = ground.new("files"), count()

    def write(content: bytes) -> Path:
        for old in folder.iterdir():
            old.unlink()
        path = folder / f"{next(number)}-{name}"
        path.write_bytes(content)
        return path

    return write


def _image(name: str, seeds: Callable[[], tuple[bytes, ...]]) -> Build:
    def build(ground: Ground) -> Target:
        def read(content: bytes) -> None:
            with telling(name):
                pixels = decode(content, name)
                assert (pixels.ndim, pixels.shape[-1]) in ((3, 1), (3, 3))

        return Target(seeds(), read)

    return build


class telling:  # noqa: N801 - reads as a statement
    """An error in words has to name the file."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: type | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, UserError):
            assert self._name in str(error), f"does not name {self._name}: {error}"


def _matlab(ground: Ground, seeds: tuple[bytes, ...]) -> Target:
    write = _file(ground, "x.mat")

    def read(content: bytes) -> None:
        url = str(write(content))
        with telling("x.mat"):
            every(
                lambda: matfile.variables(url),
                lambda: matfile.variables(url, ["b"]),
                lambda: read_pixels(url, ["b[1,1]", "b[0,1]", "i"]),
                lambda: read_pixels(url, ["i[1:5,2:7]"]),
            )

    return Target(seeds, read)


def _dnd(ground: Ground) -> Target:
    root = ground.new("dnd")
    (root / "images_srgb").mkdir()
    (root / "images_srgb" / "0001.mat").write_bytes(b"")

    def read(content: bytes) -> None:
        (root / "info.mat").write_bytes(content)
        Dnd().find(Source.of(str(root)))

    return Target((make.dnd_info(ground.new("info")),), read)


def _stack(ground: Ground) -> Target:
    write = _file(ground, "x.tif")

    def read(content: bytes) -> None:
        url = str(write(content))
        with telling("x.tif"):
            every(lambda: tiffpages.page_count(url), lambda: read_pixels(url, ["page=0", "page=2", "mean"]))

    return Target(make.stacks(), read)


def _archive(kind: str) -> Build:
    def build(ground: Ground) -> Target:
        write = _file(ground, f"x.{kind}")

        def whole(uri: str) -> None:
            read_whole(uri)
            with opened(uri) as file:
                file.read(100)

        def read(content: bytes) -> None:
            source = Source.of(str(write(content)))
            with telling(f"x.{kind}"):
                every(*(partial(whole, source.uri(name)) for name in source.files[:20]))

        return Target((make.archive(kind, ["a.png", "folder/b.png"]), make.archive(kind, ["é.png"])), read)

    return build


def _names(ground: Ground) -> Target:
    """Names of files in an archive, which every adapter looks through."""
    write = _file(ground, "names.tar")

    def read(content: bytes) -> None:
        try:
            names = json.loads(content)
        except (ValueError, RecursionError):
            return
        try:
            packed = make.archive("tar", [name for name in names if isinstance(name, str)])
        except (ValueError, TypeError, UnicodeError):
            return  # nothing that an archive can hold
        source = Source.of(str(write(packed)))
        for one in ADAPTERS.values():  # most of them find that it is none of theirs
            with contextlib.suppress(UserError):
                one.find(source)

    return Target((json.dumps(_NAMES).encode(),), read, "json")


def _labels(ground: Ground) -> Target:
    write = _file(ground, "labels.csv")
    pairs = [f"{image:04d}-{block:04d}" for image in range(2) for block in range(2)]
    records = [PairRecord(p, "sidd", "s", None, None, "n", "c", "MIT") for p in pairs]
    rows = b"index,name\n0,0001_001_S6_00100_00060_3200_L\n1,0002_003_G4_01600_00350_3200_N\n"

    def read(content: bytes) -> None:
        with telling("labels.csv"):
            labelled(records, str(write(content)))

    return Target((rows, rows.replace(b",", b';"'), b'"' + rows), read)


def _rules(ground: Ground) -> Target:
    """Rules of paired folders, applied to a folder."""
    write, source = _file(ground, "rules.yaml"), Source.of(str(ground.pairs))
    seeds = tuple(path.read_bytes() for path in sorted((CONFIGS / "datasets").iterdir()))
    own = b"dataset: own\nlicence: CC0\nnoisy: noisy/(?P<pair>.+)\\.png\nclean: clean/(?P<pair>.+)\\.png\n"
    case = b"cases:\n- {match: 'street.*', camera: GP, iso: 100, split: validation}\n"

    def read(content: bytes) -> None:
        found = adapter(str(write(content)))
        assert isinstance(found, FolderAdapter)
        assert isinstance(found.rules, FolderRules)
        found.find(source)

    return Target((*seeds, own + case), read, "yaml")


def _array(ground: Ground) -> Target:
    """zarr.json of an array of clean images."""
    root = ground.copy(ground.array)
    document = root / "zarr.json"

    def read(content: bytes) -> None:
        document.write_bytes(content)
        found = Clean().find(Source.of(str(root)))
        for record in found.records[:3]:
            every(lambda record=record: read_pixels(str(record.clean), [record.clean_part]))

    return Target((document.read_bytes(),), read, "json")


def _chunk(ground: Ground) -> Target:
    """A chunk of an array of clean images."""
    root = ground.copy(ground.array)
    chunk = root / "c/0/0/0/0"

    def read(content: bytes) -> None:
        chunk.write_bytes(content)
        every(lambda: read_pixels(str(root), ["row=0"]))

    return Target((chunk.read_bytes(),), read)


def yaml_target(folder: str, load: Callable[[str], object]) -> Build:
    """A kind of configuration, from the files that the repository has of it."""

    def build(ground: Ground) -> Target:
        write = _file(ground, "x.yaml")
        seeds = tuple(path.read_bytes() for path in sorted((CONFIGS / folder).resolve().glob("*.yaml")))

        def read(content: bytes) -> None:
            with telling("x.yaml"):
                load(str(write(content)))

        return Target(seeds, read, "yaml")

    return build


def _configurations() -> dict[str, Build]:
    from flows.paper.budget import Budget
    from flows.provision import AutomationFile
    from tasks.corpus import gate
    from tasks.denoising.training import DenoiserTrainingConfig
    from tasks.models import promotion
    from tasks.runtime.configuration import load_yaml
    from tasks.runtime.parameters import load_cluster
    from tasks.training.stages import load_training

    return {
        "yaml-clusters": yaml_target("clusters", load_cluster),
        "yaml-gates": yaml_target("quality_gates", gate.load_rules),
        "yaml-promotion": yaml_target("promotion", promotion.load_rules),
        "yaml-models": yaml_target("models", load_training),
        "yaml-denoisers": yaml_target("denoisers", lambda path: load_yaml(path, DenoiserTrainingConfig)),
        "yaml-paper": yaml_target("paper", lambda path: load_yaml(path, Budget)),
        "yaml-automations": yaml_target("../infra", lambda path: load_yaml(path, AutomationFile)),
    }


SOURCES: dict[str, Build] = {
    "png": _image("a.png", make.pngs),
    "jpeg": _image("a.jpg", make.jpegs),
    "bmp": _image("a.bmp", make.bmps),
    "tiff": _image("a.tif", make.tiffs),
    "tiff-stack": _stack,
    "matlab5": lambda ground: _matlab(ground, make.matlab5()),
    "matlab73": lambda ground: _matlab(ground, make.matlab73(ground.new("mat"))),
    "dnd-boxes": _dnd,
    "zip": _archive("zip"),
    "tar": _archive("tar"),
    "names": _names,
    "sidd-labels": _labels,
    "folder-rules": _rules,
    "zarr-array": _array,
    "zarr-chunk": _chunk,
    **_configurations(),
}
