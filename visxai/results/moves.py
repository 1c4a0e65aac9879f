"""Photographs whose folder was moved or renamed since an earlier run explained them.

Such a photograph has the name below its folder, the size and the time of change of one that was
listed, whose own file is gone. Its rows stay and get its new address, instead of being there twice.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from visxai.errors import Failure
from visxai.images import address
from visxai.record.scores import pack
from visxai.results import sealed
from visxai.results.reading import FOOTER, Part, part_of
from visxai.results.rows import REPEATED, Row

Key = tuple[str, int, int]  # name below the folder, size and time of change


def gone(listed: Iterable[Row]) -> dict[Key, Row]:
    """Find the listed local photographs whose files are gone.

    Args:
        listed: The rows of the list of inputs.

    Returns:
        The rows by name, size and time of change. Photographs with an unknown stamp, in tars or
        behind URLs are left out.
    """
    found = {}
    for row in listed:
        path = os.fsdecode(row["raw"]) if row.get("raw") else row["path"]
        stamp = row["size"], row["modified"]
        if None in stamp or stamp == address.UNKNOWN or address.remote(path):
            continue
        origin = address.Origin.of(path)
        if origin.file == path and not os.path.lexists(path):
            found[row["name"], *stamp] = row
    return found


def renamed(failed: Iterable[Failure], moved: Mapping[str, str]) -> list[Failure]:
    """Return failures with the new paths of moved photographs."""
    return [replace(one, path=moved.get(str(one.path), one.path)) for one in failed]


def rename_all(out: Path, moved: Mapping[int, Mapping[str, str]]) -> None:
    """Rename the photographs of each chunk below OUT as `rename` does."""
    for chunk, paths in moved.items():
        rename(part_of(out, chunk), paths)


def rename(path: Path, moved: Mapping[str, str]) -> None:
    """Give the rows, scores and failures of a part new paths, atomically.

    Args:
        path: The part; one that doesn't exist is left alone.
        moved: The new path of each moved photograph by its old one, both as rows keep them.

    Raises:
        StoreError: The part is damaged.
        OSError: The part can't be written; the old one stays.
    """
    if not path.exists():
        return
    part = Part.read(path)
    table = part.table()
    schema = table.schema
    footer = json.loads(schema.metadata[FOOTER])
    for one in footer["failures"]:
        one["path"] = moved.get(one["path"], one["path"])
    if part.scores:
        scores = [replace(one, path=moved.get(one.path or "", one.path)) for one in part.scores]
        footer["scores"] = pack(scores)
    if (at := schema.get_field_index("path")) >= 0:
        paths = [moved.get(one, one) for one in table.column(at).to_pylist()]
        table = table.set_column(at, schema.field(at), pa.array(paths, schema.field(at).type))
    table = table.replace_schema_metadata({FOOTER: json.dumps(footer)})
    sealed.write(path, table, compression="zstd", use_dictionary=REPEATED)
