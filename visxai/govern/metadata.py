"""Metadata of items, from a table that the caller keeps: groups, known classes.

    path,sex,site
    photos/1.jpg,f,north

The column `path` (or `id`) names each item as its record does; where no item's path is named so,
the names of files alone are compared, which must then be unique. All other columns are metadata.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from visxai.errors import StoreError

_KEYS = ("path", "id")


def read_metadata(
    table: str | os.PathLike[str], ids: Sequence[str]
) -> dict[str, tuple[str | None, ...]]:
    """Read the metadata of items.

    Args:
        table: A CSV or Parquet file with a header.
        ids: The items, as `Observations.ids` names them.

    Returns:
        For each column of metadata a value for each item, None where the table has none.

    Raises:
        StoreError: The file can't be read, has no column `path` or `id`, or fits no item.
    """
    rows = _rows(Path(table))
    key = next((name for name in _KEYS if rows and name in rows[0]), None)
    if key is None:
        raise StoreError(
            expected=f"a table with a column path or id in {os.fspath(table)}",
            got=f"the columns {', '.join(rows[0]) if rows else 'of an empty table'}",
            remedy="name the items in a column path",
            field="metadata",
        )
    by_id = {str(row[key]): row for row in rows}
    wanted: Sequence[str] = ids
    if not any(one in by_id for one in ids):
        by_id = {_name(one): row for one, row in by_id.items()}
        wanted = [_name(one) for one in ids]
        twice = next((name for name, count in Counter(wanted).items() if count > 1), None)
        if twice is not None and twice in by_id:
            raise StoreError(
                expected=f"the items' whole paths in {os.fspath(table)}",
                got=f"the name {twice!r}, which several items have",
                remedy="write the paths as the results have them",
                field="metadata",
            )
    if not any(one in by_id for one in wanted):
        raise StoreError(
            expected=f"the explained items in {os.fspath(table)}",
            got=f"{len(rows)} others, such as {str(rows[0][key])!r}",
            remedy=f"name them like {ids[0]!r}",
            field="metadata",
        )
    return {
        name: tuple(_text(by_id.get(one, {}).get(name)) for one in wanted)
        for name in rows[0]
        if name != key
    }


def _rows(path: Path) -> list[dict[str, object]]:
    import pyarrow as pa
    import pyarrow.csv
    import pyarrow.parquet

    try:
        if path.suffix.lower() == ".parquet":
            table = pyarrow.parquet.read_table(path)
        else:
            # All columns as text: a postcode or a code of a group is no number.
            with open(path, encoding="utf-8-sig") as file:
                header = pyarrow.csv.read_csv(
                    pa.BufferReader(file.readline().encode())
                ).column_names
            options = pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(header, pa.string()), strings_can_be_null=True
            )
            table = pyarrow.csv.read_csv(path, convert_options=options)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise StoreError(
            expected=f"a CSV or Parquet table in {path}",
            got=" ".join(str(getattr(error, "strerror", None) or error).split())[:200],
            remedy="check the file",
            field="metadata",
        ) from None
    rows: list[dict[str, object]] = table.to_pylist()
    return rows


def _name(path: str) -> str:
    return PurePosixPath(path.replace("\\", "/")).name


def _text(value: object) -> str | None:
    return None if value is None or value == "" else str(value)
