"""Tables of images, CSV or Parquet: every column is read as text.

Each Parquet file is read by a process of its own, so there are few inputs a second.
"""

from __future__ import annotations

import io

import pyarrow as pa
import pyarrow.parquet as pq

from visxai.images import tables

RUNS = 400
WORDS = ("path", "label", "PAR1", "\ufeff", '"', ",", "\r\n")


def check(data: bytes) -> None:
    """The table, its paths and labels."""
    table = tables.read("table", data)
    paths = table.paths()
    labels = table.labels()
    assert all(isinstance(cell, str) for cell in paths)
    assert labels is None or len(labels) == len(paths)


def seeds() -> dict[str, bytes]:
    """A CSV, and Parquet with text, numbers, a dictionary and a list."""
    columns = {
        "plain": {"path": ["a.jpg", None], "label": ["owl", "cat"]},
        "numbers": {"file": ["a.jpg", "b.jpg"], "label": [1.0, None]},
        "dictionary": {"path": pa.array(["a", "a"]).dictionary_encode(), "label": [3, 4]},
        "list": {"path": ["a.jpg"], "label": [[1, 2]]},
        "time": {"path": pa.array([0], pa.timestamp("ns")), "label": ["owl"]},
    }
    made = {f"{name}.parquet": _parquet(pa.table(told)) for name, told in columns.items()}
    return {**made, "rows.csv": b'\xef\xbb\xbfpath,label\n"a ""b"".jpg",owl\nc.jpg\n'}


def _parquet(table: pa.Table) -> bytes:
    stream = io.BytesIO()
    pq.write_table(table, stream, compression="none")
    return stream.getvalue()
