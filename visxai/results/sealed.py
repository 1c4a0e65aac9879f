"""Parquet files that contain their own checksum, so that a damaged file is always refused.

The last entry of a file's key-value metadata, `visxai.sha256`, is the SHA-256 of all its bytes, the
digest's own place filled with zeros. To every other reader it is a plain Parquet file. Files of
older versions lack this entry; of those only damage that Parquet itself detects is refused.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from visxai import files
from visxai.errors import StoreError, Words

_KEY = b"visxai.sha256"
_BLANK = b"0" * 64
# How Parquet writes the entry: its key, then the type and the length of its value.
_MARK = _KEY + b"\x18\x40"
# The errors that Arrow raises for bytes that aren't Parquet, or are of another schema.
DAMAGE = (pa.ArrowException, OSError, ValueError, KeyError, TypeError, MemoryError)


def write(path: Path, table: pa.Table, **options: Any) -> None:
    """Write a table to a file atomically, with its checksum.

    Args:
        path: The file; its folder must exist.
        table: The table.
        **options: The keyword arguments of `pyarrow.parquet.ParquetWriter`.

    Raises:
        OSError: The file can't be written; the old file stays.
    """
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, table.schema, write_page_checksum=True, **options) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({_KEY: _BLANK})
    data = memoryview(sink.getvalue())
    start = _place(data)
    assert start is not None
    digest = hashlib.sha256(data).hexdigest().encode()
    with files.replacing(path) as partial, open(partial, "wb") as file:
        for piece in (data[:start], digest, data[start + len(digest) :]):
            file.write(piece)


def read(path: Path, remedy: Words) -> pq.ParquetFile:
    """Read a file into memory and verify its checksum.

    Args:
        path: The file.
        remedy: What the user can do about a damaged file, for the error message.

    Raises:
        StoreError: The file is missing, damaged or can't be read.
    """
    try:
        data = path.read_bytes()
        start = _place(data)
        if start is not None and not _is_whole(data, start):
            raise ValueError("another checksum")
        return pq.ParquetFile(pa.BufferReader(data), page_checksum_verification=True)
    except FileNotFoundError as error:
        raise StoreError(expected=str(path), got="no such file", remedy=remedy) from error
    except DAMAGE as error:
        raise damaged(path, remedy) from error


def damaged(path: Path, remedy: Words) -> StoreError:
    """Make the error about a file that isn't as visxai wrote it."""
    return StoreError(expected=f"{path} as visxai wrote it", got="it damaged", remedy=remedy)


def _place(data: bytes | memoryview) -> int | None:
    """Find where the digest begins; return None in a file without a digest."""
    # The footer ends with its length and a magic number.
    length = int.from_bytes(data[-8:-4], "little")
    tail = bytes(data[max(0, len(data) - 8 - length) :])
    found = tail.rfind(_MARK)
    return None if found < 0 else len(data) - len(tail) + found + len(_MARK)


def _is_whole(data: bytes, start: int) -> bool:
    """Tell whether the digest at `start` is that of the file's other bytes."""
    view, end = memoryview(data), start + len(_BLANK)
    digest = hashlib.sha256(view[:start])
    digest.update(_BLANK)
    digest.update(view[end:])
    return digest.hexdigest().encode() == data[start:end]
