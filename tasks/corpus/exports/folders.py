"""Two folders of image files with equal names, where BasicSR, NAFNet and Restormer look for them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from tasks.corpus.exports.images import CODECS, encode_image
from tasks.corpus.exports.pairs import CorpusPairs
from tasks.corpus.exports.protocol import ExportTask, Settings, Share, Written, ranges
from tasks.stores.commits import ObjectFact
from tasks.stores.layout import CLEAN, NOISY

BASICSR, NAFNET, RESTORMER = "basicsr", "nafnet", "restormer"
FOLDERS = {
    BASICSR: {CLEAN: "gt", NOISY: "lq"},
    NAFNET: {CLEAN: "train/gt_crops", NOISY: "train/input_crops"},
    RESTORMER: {CLEAN: "train/SIDD/target_crops", NOISY: "train/SIDD/input_crops"},
}
"""Folders of both sides by layout: of the options files that these trainers ship, below ``datasets/SIDD`` of NAFNet and
``Denoising/Datasets`` of Restormer."""
META = "meta_info.txt"


class Folders:
    """One image file per image."""

    layouts = tuple(FOLDERS)
    codecs = CODECS
    file_per_image = True

    def refuse(self, output: str, settings: Settings, pairs: CorpusPairs) -> None:
        """These trainers read pairs."""
        pairs.require_both()

    def shares(self, settings: Settings, pairs: CorpusPairs) -> Iterator[Share]:
        """A run of pairs each."""
        return ranges(pairs, settings.pairs_per_file)

    def write(self, task: ExportTask, pairs: CorpusPairs) -> Written:
        """Publish both images of every pair."""
        folders, count = FOLDERS[str(task.settings.layout)], 0
        files: dict[str, ObjectFact] = {}
        for pair in task.read(pairs):
            for array, folder in folders.items():
                name = f"{folder}/{pair.key}.{task.settings.codec}"
                files |= task.publish(name, encode_image(pair.images[array], task.settings.codec))
            count += 1
        return Written(count, files)

    def closing(
        self, output: str, settings: Settings, pairs: CorpusPairs, written: Iterable[Written]
    ) -> dict[str, bytes]:
        """BasicSR's list of names, which saves it listing the folders; the other two layouts have no place for it."""
        if settings.layout != BASICSR:
            return {}
        folder = FOLDERS[BASICSR][CLEAN] + "/"
        names = (name for share in written for name in sorted(share.files) if name.startswith(folder))
        lines = [f"{name.removeprefix(folder)} {shape_words(pairs)}\n" for name in names]
        return {META: "".join(lines).encode()}


def shape_words(pairs: CorpusPairs) -> str:
    """Height, width and channels as BasicSR's lists have them: ``(256,256,3)``."""
    channels, height, width = pairs.shape
    return f"({height},{width},{channels})"
