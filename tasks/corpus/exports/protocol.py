"""What every export format is: how the corpus is shared out to files, how one share is written, what closes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

from tasks.corpus.exports.pairs import CorpusPairs, ExportPair


@dataclass(frozen=True)
class Settings:
    """What decides an export's bytes, beside the corpus."""

    format: str
    layout: str | None
    codec: str
    accepted_only: bool
    pairs_per_file: int | None
    """None where a format has no choice."""


@dataclass(frozen=True)
class Share:
    """Some pairs, or one side of them, that go into files of their own."""

    start: int
    stop: int
    arrays: tuple[str, ...]


@dataclass(frozen=True)
class ExportTask:
    """What a worker needs to write one share."""

    corpus: str
    digest: str
    output: str
    key: str
    """Digest of the export's plan."""
    settings: Settings
    index: int
    share: Share

    def read(self, pairs: CorpusPairs) -> Iterator[ExportPair]:
        """The pairs of this share."""
        share = self.share
        return pairs.read(share.start, share.stop, share.arrays, accepted_only=self.settings.accepted_only)


@dataclass(frozen=True)
class FileFact:
    """One published file."""

    sha256: str
    bytes: int


@dataclass(frozen=True)
class Written:
    """What became of a share."""

    pairs: int
    files: dict[str, FileFact]
    """By path in the export."""


class ExportFormat(Protocol):
    """One format. Its methods run in any process; they keep nothing."""

    @property
    def layouts(self) -> tuple[str, ...]:
        """Names of folder layouts, the default first; empty when there is only one way."""

    @property
    def codecs(self) -> tuple[str, ...]:
        """Image codecs, the default first."""

    @property
    def file_per_image(self) -> bool:
        """Whether there are too many files for one record: their digests stay in the receipts."""

    def refuse(self, output: str, settings: Settings, pairs: CorpusPairs) -> None:
        """Raise a UserError when this corpus cannot be exported so, before anything is written."""

    def shares(self, settings: Settings, pairs: CorpusPairs) -> Iterator[Share]:
        """Shares of the corpus; each is one task."""

    def write(self, task: ExportTask, pairs: CorpusPairs) -> Written:
        """Publish the files of one share."""

    def closing(
        self, output: str, settings: Settings, pairs: CorpusPairs, written: Iterable[Written]
    ) -> dict[str, bytes]:
        """Files over the whole export, by path; ``written`` are all shares in order."""


def ranges(pairs: CorpusPairs, size: int | None) -> Iterator[Share]:
    """Both sides of every ``size`` pairs; a shard of the corpus where it is None."""
    step = size or pairs.shard
    for start in range(0, len(pairs), step):
        yield Share(start, min(start + step, len(pairs)), pairs.arrays)
