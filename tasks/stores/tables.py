"""Parquet tables to and from bytes, in this thread.

pyarrow's thread pool may abort or hang the interpreter at its end when it was used with Python file objects
(apache/arrow#34314, #50482), so neither is used: buffers in, buffers out, no threads.
"""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq


def encode_table(table: pa.Table) -> bytes:
    """A Parquet file of ``table``; equal tables give equal bytes with one version of pyarrow."""
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    return bytes(sink.getvalue().to_pybytes())


def decode_table(content: bytes) -> pa.Table:
    """The table in a Parquet file.

    Raises:
        pyarrow.ArrowException, OSError, ValueError: it is damaged.
    """
    return pq.ParquetFile(pa.BufferReader(content)).read(use_threads=False)


def written_by(content: bytes) -> str:
    """The library and version that wrote a Parquet file."""
    return str(pq.ParquetFile(pa.BufferReader(content)).metadata.created_by)
