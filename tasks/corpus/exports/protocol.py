"""What every export format is: how the corpus is shared out to files, how one share is written, what closes it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Protocol

from tasks.corpus.exports.pairs import CorpusPairs, ExportPair
from tasks.stores.commits import ObjectFact, PartWriter
from tasks.stores.kinds import EXPORT_FOLDER

KIND = "export"
FORMAT_VERSION = 2


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
    settings: Settings
    index: int
    share: Share

    @property
    def writer(self) -> PartWriter:
        """Writes the export; a share is a part."""
        return export_writer(self.output, self.settings, self.digest)

    def publish(self, name: str, content: bytes) -> dict[str, ObjectFact]:
        """Write one file of the share; returns its facts by path."""
        return self.writer.write_objects({name: content})

    def read(self, pairs: CorpusPairs) -> Iterator[ExportPair]:
        """The pairs of this share."""
        share = self.share
        return pairs.read(share.start, share.stop, share.arrays, accepted_only=self.settings.accepted_only)


@dataclass(frozen=True)
class Written:
    """The files of a share."""

    pairs: int
    files: dict[str, ObjectFact]
    """By path in the export."""


def export_writer(output: str, settings: Settings, corpus: str) -> PartWriter:
    """The writer of an export; ``corpus`` is the digest of the corpus."""
    plan = {"kind": KIND, "format_version": FORMAT_VERSION, "corpus": corpus, "settings": asdict(settings)}
    return PartWriter(output, plan, folder=EXPORT_FOLDER)


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
        """Whether every image is a file."""

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
