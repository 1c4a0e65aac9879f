"""Tables from files and libraries, as Arrow tables and in batches of bounded memory.

for batch in batches("applicants.parquet"): ...         # never the whole file in memory
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from visxai.errors import ArgumentError

ROWS = 16384  # rows of a batch: 20 features take 2.6 MB


class Batch(NamedTuple):
    """Rows of a table.

    Attributes:
        first: The position in the table of the first row, from 0.
        table: The rows.
    """

    first: int
    table: pa.Table


def arrow(data: Any, names: Sequence[str] = ()) -> pa.Table:
    """Turn a table in memory, or a small file, into an Arrow table.

    Args:
        data: A pandas or polars DataFrame, an Arrow table or batch, a mapping of columns, a list of
            mappings, a NumPy array (rows, features), or the path of a Parquet or CSV file.
        names: The columns' names where the data have none.

    Raises:
        ArgumentError: It is none of these, or can't be read.
    """
    if isinstance(data, (str, os.PathLike)):
        found = [batch.table for batch in batches(data)]
        return pa.concat_tables(found) if found else pa.table({})
    if isinstance(data, pa.Table):
        return data
    if isinstance(data, pa.RecordBatch):
        return pa.Table.from_batches([data])
    kind = f"{type(data).__module__.split('.')[0]}.{type(data).__name__}"
    try:
        if kind == "pandas.DataFrame":
            return pa.Table.from_pandas(data, preserve_index=False)
        if kind == "polars.DataFrame":
            return data.to_arrow()
        if isinstance(data, np.ndarray) and data.ndim == 2 and len(names) == data.shape[1]:
            return pa.table({name: data[:, at] for at, name in enumerate(names)})
        if isinstance(data, Mapping):
            return pa.table(dict(data))
        if isinstance(data, Sequence) and data and all(isinstance(x, Mapping) for x in data):
            return pa.Table.from_pylist([dict(row) for row in data])
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        reason = str(error).splitlines()[0]
        raise ArgumentError(
            f"expected columns of one type each, got others ({reason}): correct them", field="data"
        ) from None
    shape = f" of shape {data.shape}" if isinstance(data, np.ndarray) else ""
    raise ArgumentError(
        f"expected a table, got {type(data).__name__}{shape}: pass a DataFrame, an array with a "
        "column for each feature, or the path of a Parquet or CSV file",
        field="data",
    )


def batches(
    data: Any, columns: Sequence[str] | None = None, size: int = ROWS, names: Sequence[str] = ()
) -> Iterator[Batch]:
    """Yield a table in batches; a file is never read whole.

    Args:
        data: A table as for `arrow`, or the path of a Parquet or CSV file.
        columns: The columns to read, all by default; columns that are missing are left out.
        size: The most rows of a batch.
        names: The columns' names where the data have none.

    Raises:
        ArgumentError: The file can't be read, or the data are no table.
    """
    first = 0
    for table in _tables(data, columns, size, names):
        for start in range(0, table.num_rows, size):
            part = table.slice(start, size)
            yield Batch(first, part)
            first += part.num_rows


def count(data: str | os.PathLike[str]) -> int:
    """Count a file's rows; a CSV file is read for it.

    Raises:
        ArgumentError: The file can't be read.
    """
    if _ending(data) == ".parquet":
        try:
            return int(pq.read_metadata(data).num_rows)
        except (OSError, pa.ArrowException) as error:
            raise _unreadable(data, error) from None
    return sum(batch.table.num_rows for batch in batches(data))


def column_names(data: str | os.PathLike[str]) -> tuple[str, ...]:
    """Read a file's column names.

    Raises:
        ArgumentError: The file can't be read.
    """
    try:
        if _ending(data) == ".parquet":
            return tuple(pq.read_schema(data).names)
        with pyarrow.csv.open_csv(data) as reader:
            return tuple(reader.schema.names)
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(data, error) from None


def _tables(
    data: Any, columns: Sequence[str] | None, size: int, names: Sequence[str]
) -> Iterator[pa.Table]:
    if not isinstance(data, (str, os.PathLike)):
        table = arrow(data, names)
        wanted = None if columns is None else [x for x in columns if x in table.column_names]
        yield table if wanted is None else table.select(wanted)
        return
    wanted = None if columns is None else [x for x in columns if x in column_names(data)]
    try:
        if _ending(data) == ".parquet":
            with pq.ParquetFile(data) as file:
                # Group by group: one reader of the whole file keeps what it has read.
                for group in range(file.num_row_groups):
                    for batch in file.iter_batches(size, row_groups=[group], columns=wanted):
                        yield pa.Table.from_batches([batch])
        else:
            # Empty cells, NA and the like are missing values, in columns of words too.
            chosen = pyarrow.csv.ConvertOptions(include_columns=wanted, strings_can_be_null=True)
            with pyarrow.csv.open_csv(data, convert_options=chosen) as reader:
                for batch in reader:
                    yield pa.Table.from_batches([batch])
    except (OSError, pa.ArrowException) as error:
        raise _unreadable(data, error) from None


def _ending(data: str | os.PathLike[str]) -> str:
    ending = Path(data).suffix.lower()
    if ending not in (".parquet", ".csv"):
        raise ArgumentError(
            f"expected a Parquet or CSV file, got {os.fspath(data)}: convert it to one of them",
            field="data",
        )
    return ending


def _unreadable(data: str | os.PathLike[str], error: Exception) -> ArgumentError:
    reason = str(error).splitlines()[0]
    return ArgumentError(
        f"expected a readable table, got {os.fspath(data)} ({reason}): check the file", field="data"
    )
