"""Parquet that Hugging Face ``datasets`` opens as images: files in structs, features in the schema's metadata."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.corpus.exports.card import dataset_card
from tasks.corpus.exports.images import CODECS, encode_image
from tasks.corpus.exports.pairs import CorpusPairs, ExportPair
from tasks.corpus.exports.protocol import ExportTask, Settings, Share, Written, ranges

CARD = "README.md"
_IMAGE = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
_ROW_GROUP = 64  # pairs: some MB, what a viewer fetches for one page
_NAMES = {"float": "float32", "double": "float64", "halffloat": "float16"}
"""Arrow's names that are others in ``datasets``."""


class Parquet:
    """One table for some pairs: images, then the manifest's columns."""

    layouts: tuple[str, ...] = ()
    codecs = CODECS
    file_per_image = False

    def refuse(self, output: str, settings: Settings, pairs: CorpusPairs) -> None:
        """Every corpus fits."""

    def shares(self, settings: Settings, pairs: CorpusPairs) -> Iterator[Share]:
        """One table each."""
        return ranges(pairs, settings.pairs_per_file)

    def write(self, task: ExportTask, pairs: CorpusPairs) -> Written:
        """Make one table in memory, a row group at a time, and publish it."""
        arrays = task.share.arrays
        schema, sink, count = table_schema(arrays, pairs.columns), pa.BufferOutputStream(), 0
        images = [f"{array}.bytes" for array in arrays]
        columns = [*images, *(f"{array}.path" for array in arrays), *schema.names[len(arrays) :]]
        writer = pq.ParquetWriter(
            sink,
            schema,
            compression={c: "none" if c in images else "zstd" for c in columns},  # the images are compressed
            use_dictionary=[c for c in columns if c not in images],
            write_statistics=[c for c in columns if c not in images],
        )
        with writer:
            coming = task.read(pairs)
            while rows := [_row(pair, task) for pair in islice(coming, _ROW_GROUP)]:
                writer.write_table(pa.Table.from_pylist(rows, schema), row_group_size=_ROW_GROUP)
                count += len(rows)
        shares = -(-len(pairs) // (task.settings.pairs_per_file or pairs.shard))
        name = f"data/train-{task.index:05d}-of-{shares:05d}.parquet"
        return Written(count, task.publish(name, bytes(sink.getvalue().to_pybytes())))

    def closing(
        self, output: str, settings: Settings, pairs: CorpusPairs, written: Iterable[Written]
    ) -> dict[str, bytes]:
        """The dataset card."""
        return {CARD: dataset_card(settings, pairs, written).encode()}


def _row(pair: ExportPair, task: ExportTask) -> dict[str, Any]:
    codec = task.settings.codec
    images = {
        array: {"bytes": encode_image(pair.images[array], codec), "path": f"{pair.key}.{array}.{codec}"}
        for array in task.share.arrays
    }
    return images | {column_name(name, task.share.arrays): value for name, value in pair.row.items()}


def column_name(name: str, arrays: Sequence[str]) -> str:
    """A manifest column's name beside the images: ``clean`` there says where the image is from."""
    return f"{name}_source" if name in arrays else name


def table_schema(arrays: Sequence[str], columns: pa.Schema) -> pa.Schema:
    """Columns of the table, with the metadata that tells ``datasets`` which of them are images."""
    fields = [pa.field(array, _IMAGE) for array in arrays] + [c.with_name(column_name(c.name, arrays)) for c in columns]
    features = {f.name: _feature(f.type) for f in fields}
    content = json.dumps({"info": {"features": features}})
    return pa.schema(fields, metadata={"huggingface": content})


def _feature(kind: pa.DataType) -> dict[str, str]:
    if kind == _IMAGE:
        return {"_type": "Image"}
    return {"dtype": _NAMES.get(str(kind), str(kind)), "_type": "Value"}
