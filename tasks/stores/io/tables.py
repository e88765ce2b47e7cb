"""Parquet tables to and from bytes, in this thread.

pyarrow's thread pool can abort or hang the interpreter at exit after use with Python file objects
(apache/arrow#34314, #50482). So tables are read from and written to buffers, without threads.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pngmodel.errors import IntegrityError

_LIMITS = {"thrift_string_size_limit": 64 << 20, "thrift_container_size_limit": 1 << 20}
_MAX_COLUMNS, _MAX_VALUES, _MAX_BYTES = 1000, 1 << 31, 4 << 30
_MAGIC = b"PAR1"
_ROWS_AT_ONCE = 1 << 16
_SHOWN = 300  # characters of names


def encode_table(table: pa.Table) -> bytes:
    """Encode a table as Parquet. Equal tables give equal bytes with the same version of pyarrow."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd", write_page_checksum=True)
    return bytes(sink.getvalue().to_pybytes())


def decode_table(content: bytes, location: str, schema: pa.Schema | None = None) -> pa.Table:
    """Decode a Parquet file.

    Args:
        content: the file.
        location: of the file, for error messages.
        schema: the columns that it must have; None if the caller checks them.

    Raises:
        IntegrityError: it is damaged, has other columns, or decodes to more than the limits.
    """
    try:
        if not content.startswith(_MAGIC):
            raise ValueError("not a Parquet file")
        found = pq.ParquetFile(pa.BufferReader(content), **_LIMITS).schema_arrow
        if schema is not None and not found.equals(schema, check_metadata=False):
            raise ValueError(f"its columns are {', '.join(found.names)[:_SHOWN]}")
        return _read(content, found)
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, MemoryError) as error:
        raise IntegrityError(f"{location}: is damaged ({error}); make it again") from None


def _check_size(metadata: pq.FileMetaData) -> None:
    columns = max(1, metadata.num_columns)
    unpacked = sum(
        metadata.row_group(group).column(column).total_uncompressed_size
        for group in range(metadata.num_row_groups)
        for column in range(metadata.num_columns)
    )
    if columns > _MAX_COLUMNS or metadata.num_rows * columns > _MAX_VALUES or unpacked > _MAX_BYTES:
        raise ValueError(f"{metadata.num_rows} rows of {columns} columns in {unpacked} bytes, more than the limit")


def _read(content: bytes, schema: pa.Schema) -> pa.Table:
    """All rows. Strings are read as dictionaries first: one long string may be repeated in every row."""
    texts = [field.name for field in schema if pa.types.is_string(field.type)]
    file = pq.ParquetFile(pa.BufferReader(content), read_dictionary=texts, page_checksum_verification=True, **_LIMITS)
    _check_size(file.metadata)
    batches, held = [], 0
    for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
        batch.validate(full=True)  # invalid UTF-8, offsets out of range
        held += sum(_unpacked(column) for column in batch.columns)
        if held > _MAX_BYTES:
            raise ValueError(f"more than {_MAX_BYTES} bytes of values")
        columns = [c.dictionary_decode() if pa.types.is_dictionary(c.type) else c for c in batch.columns]
        batches.append(pa.RecordBatch.from_arrays(columns, schema=schema))
    return pa.Table.from_batches(batches, schema).combine_chunks()


def _unpacked(column: pa.Array) -> int:
    if not pa.types.is_dictionary(column.type):
        return int(column.nbytes)
    lengths = pc.binary_length(column.dictionary).cast(pa.int64()).take(column.indices)
    return 5 * len(column) + (pc.sum(lengths).as_py() or 0)
