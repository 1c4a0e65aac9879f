"""Parquet tables from strangers, read by a process of their own within limits.

A few bytes of a Parquet file can make its decoder allocate gigabytes, or never end. So a child
process reads it, which may use a limited amount of memory, reaches no network and writes nothing
(`visxai.sandbox`), and is ended when it takes too long. It answers in JSON.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import weakref
from typing import IO, Any

from visxai import sandbox
from visxai.errors import ArgumentError
from visxai.foreign import shown

_MEMORY = 2**31  # bytes that reading may use, and for each byte of the file ...
_MEMORY_A_BYTE = 32
_SECONDS = 120.0  # for one column

_CHILD = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); " + (
    "from visxai.images.parquet import answer; answer(sys.stdin.buffer, sys.stdout)"
)


class ParquetTable:
    """A Parquet table whose columns are read on demand, each as a list of text.

    Args:
        name: The table's name, for messages.
        data: The file's bytes.

    Attributes:
        columns: The names of the columns.

    Raises:
        ArgumentError: The bytes aren't a Parquet table, or a column is neither text nor numbers.
    """

    def __init__(self, name: str, data: bytes) -> None:
        self.name = name
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-c", _CHILD, json.dumps(sys.path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # The system's allocator counts only what is used, other ones reserve gigabytes.
            env={**os.environ, "ARROW_DEFAULT_MEMORY_POOL": "system"},
        )
        weakref.finalize(self, _end, self._child)
        self.columns: tuple[str, ...] = tuple(self._ask(len(data).to_bytes(8, "big") + data))

    def cells(self, index: int) -> list[str]:
        """Return the cells of a column, "" where one is empty."""
        answer = self._ask(f"{index}\n".encode())
        if isinstance(answer, str):
            raise ArgumentError(
                f"expected text or numbers in the column {self.columns[index]!r} of {self.name}, "
                f"got {shown(answer)}: name another column"
            )
        cells: list[str] = answer
        return cells

    def _ask(self, request: bytes) -> Any:
        """Send a request to the child and return its answer."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        timer = threading.Timer(_SECONDS, self._child.kill)
        timer.daemon = True
        timer.start()
        try:
            self._child.stdin.write(request)
            self._child.stdin.flush()
            return json.loads(self._child.stdout.readline())
        except (OSError, ValueError):
            raise ArgumentError(
                f"expected a Parquet table in {self.name}, got one that is damaged or too large "
                "to read: write it again"
            ) from None
        finally:
            timer.cancel()


def _end(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.communicate()


# ---- in the child --------------------------------------------------------------------------------


def answer(requests: IO[bytes], answers: IO[str]) -> None:
    """Answer the requests of a ParquetTable: its columns' names, then cells by column number.

    Args:
        requests: Eight bytes that give the file's size, the file, then a line for each column.
        answers: Gets a line of JSON for each request: a list of text, or the name of a type
            that is neither text nor numbers. A damaged file ends the process.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    size = int.from_bytes(requests.read(8), "big")
    data = requests.read(size)
    sandbox.confine(_MEMORY + _MEMORY_A_BYTE * size, ())
    file = pq.ParquetFile(pa.BufferReader(data))
    schema = file.schema_arrow

    def cells(index: int) -> list[str] | str:
        kind = schema.field(index).type
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        if not (text or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            return str(kind)
        table = file.read(columns=[schema.names[index]], use_threads=False)
        values = table.column(0).to_pylist()
        if len(values) != file.metadata.num_rows:
            raise ValueError("a column has more or fewer cells than the table has rows")
        return ["" if value is None or value != value else _text(value) for value in values]

    print(json.dumps(schema.names), file=answers, flush=True)
    for line in requests:
        print(json.dumps(cells(int(line))), file=answers, flush=True)


def _text(value: object) -> str:
    """Convert a cell to text; whole numbers that a column with gaps made floats stay whole."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
