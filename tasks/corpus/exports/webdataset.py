"""WebDataset: a tar for some pairs, members ``00000042.clean.png``, ``00000042.noisy.png``, ``00000042.json``."""

from __future__ import annotations

import io
import json
import math
import tarfile
from collections.abc import Iterable, Iterator
from typing import Any

from tasks.corpus.exports.images import CODECS, encode_image
from tasks.corpus.exports.pairs import CorpusPairs
from tasks.corpus.exports.protocol import ExportTask, Settings, Share, Written, ranges


class WebDataset:
    """Tars with the same number everywhere, so that ``corpus-{000000..000041}.tar`` has no gap: a range whose pairs
    were all rejected is an empty tar."""

    layouts: tuple[str, ...] = ()
    codecs = CODECS
    file_per_image = False

    def refuse(self, output: str, settings: Settings, pairs: CorpusPairs) -> None:
        """Every corpus fits."""

    def shares(self, settings: Settings, pairs: CorpusPairs) -> Iterator[Share]:
        """One tar each."""
        return ranges(pairs, settings.pairs_per_file)

    def write(self, task: ExportTask, pairs: CorpusPairs) -> Written:
        """Make one tar in memory and publish it."""
        sink, count = io.BytesIO(), 0
        with tarfile.open(fileobj=sink, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for pair in task.read(pairs):
                for name in task.share.arrays:
                    content = encode_image(pair.images[name], task.settings.codec)
                    _add(tar, f"{pair.key}.{name}.{task.settings.codec}", content)
                _add(tar, f"{pair.key}.json", encode_row(pair.row))
                count += 1
        name = f"corpus-{task.index:06d}.tar"
        return Written(count, task.publish(name, sink.getvalue()))

    def closing(
        self, output: str, settings: Settings, pairs: CorpusPairs, written: Iterable[Written]
    ) -> dict[str, bytes]:
        """Nothing: a WebDataset is its tars."""
        return {}


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    member = tarfile.TarInfo(name)  # time, owner and group are 0: nothing of the machine gets in
    member.size, member.mode = len(content), 0o644
    tar.addfile(member, io.BytesIO(content))


def encode_row(row: dict[str, Any]) -> bytes:
    """A manifest row as JSON; what is not finite is null, since JSON has no word for it."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}
    return json.dumps(finite, sort_keys=True, allow_nan=False).encode()
