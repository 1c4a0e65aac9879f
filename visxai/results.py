"""The store of a folder run: what was finished stays finished, whatever kills the process.

    OUT/explanations/part-00000.parquet   one row an image, method and class
    OUT/overlays/...                      the pictures, named after their images
    OUT/failures.parquet                  what could not be explained, and why
    OUT/inputs.parquet                    the ordered input and its cut into chunks
    OUT/run.json                          command, settings, versions, counts, seconds by stage
    OUT/report, report.html, export       what `visxai report` and `visxai export` made of it

The ordered input is cut into fixed chunks. A chunk's rows and failures are one Parquet part (the
failures in its footer), written aside, synced and renamed: a chunk is there whole or not at all.
Everything else can be derived from the parts and is rewritten when a run opens or ends. Files
found later become new chunks. Rows hold every field of the record (`Explanation.row`), `overlay`
(the picture's name below OUT/overlays), `expected` (the label that the image came with, as the
model calls it, null where it had none), and `quality` and `versions` as JSON.

    for explanation in visxai.results.read("OUT"): ...
    pandas.read_parquet("OUT/explanations")
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from visxai.errors import StoreError
from visxai.record import Explanation, Failure

FORMAT = 1
SCHEMA = pa.schema(
    [
        ("path", pa.string()),
        ("source_sha256", pa.string()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        (
            "transform",
            pa.struct(
                [
                    ("resized", pa.list_(pa.int32())),
                    ("crop", pa.list_(pa.int32())),
                    ("orientation", pa.int32()),
                    ("assumed", pa.bool_()),
                ]
            ),
        ),
        ("model", pa.string()),
        ("weights_sha256", pa.string()),
        ("preprocess", pa.string()),
        ("method", pa.string()),
        ("layer", pa.string()),
        ("target", pa.string()),
        ("class_index", pa.int32()),
        ("label", pa.string()),
        ("score", pa.float64()),
        ("logit", pa.float64()),
        ("device", pa.string()),
        ("precision", pa.string()),
        ("accelerate", pa.string()),
        ("versions", pa.string()),
        ("map", pa.binary()),
        ("map_shape", pa.list_(pa.int32())),
        ("map_scale", pa.float64()),
        ("degenerate", pa.bool_()),
        ("quality", pa.string()),
        ("created", pa.string()),
        ("seconds", pa.float64()),
        ("kind", pa.string()),
        ("schema_version", pa.int32()),
        ("overlay", pa.string()),
        ("expected", pa.string()),
    ]
)
_JSON = ("quality", "versions")
FOOTER = b"visxai"  # where a part's footer holds its failures and its answers, as JSON
EXPORTED = ".visxai-export"  # the file that marks a folder as an export

Row = dict[str, Any]


def text(path: Any) -> Any:
    """A path as valid text: bytes that are none are written \\xNN."""
    return None if path is None else str(path).encode("utf-8", "backslashreplace").decode()


def row_of(explanation: Explanation, overlay: str | None, expected: str | None = None) -> Row:
    """The stored row of an explanation, `overlay` being its picture's name below OUT/overlays and
    `expected` the label its image came with."""
    row = explanation.row() | {"overlay": overlay, "expected": expected}
    row["path"] = text(row["path"])
    return row | {name: json.dumps(row[name], sort_keys=True) for name in _JSON}


def of_row(row: Mapping[str, Any]) -> Explanation:
    """The explanation in a stored row; its map has float16 precision."""
    return Explanation.from_dict({**row, **{name: json.loads(row[name]) for name in _JSON}})


def read(out: str | os.PathLike[str]) -> Iterator[Explanation]:
    """The explanations below OUT in the order of the input, one part in memory at a time."""
    for part in parts(_checked(out)).values():
        yield from map(of_row, pq.read_table(part).to_pylist())


def dataset(out: str | os.PathLike[str]) -> Any:
    """The rows below OUT as one `pyarrow.dataset.Dataset`."""
    files = [str(path) for path in parts(_checked(out)).values()]
    return pyarrow.dataset.dataset(files, schema=SCHEMA, format="parquet")


def failures(out: str | os.PathLike[str]) -> list[Failure]:
    """What could not be explained below OUT so far, in the order of the input."""
    return [one for path in parts(_checked(out)).values() for one in failures_in(path)]


def is_results(folder: str | os.PathLike[str]) -> bool:
    """Whether a folder is the OUT of a run."""
    return about(Path(folder)) is not None


def _checked(out: str | os.PathLike[str]) -> Path:
    if about(Path(out)) is None:
        raise StoreError(
            f"expected a folder that `visxai explain --out` wrote, got {os.fspath(out)}: "
            "check the path"
        )
    return Path(out)


def about(out: Path) -> dict[str, Any] | None:
    """What run.json says, or None where there is none that visxai wrote."""
    try:
        told = json.loads((out / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or "visxai_results" not in told:
        return None
    if told["visxai_results"] != FORMAT:
        raise StoreError(
            f"expected results of format {FORMAT} in {out}, got {told['visxai_results']!r}: "
            "use the visxai that wrote them, or another --out"
        )
    return told


def parts(out: Path) -> dict[int, Path]:
    """The finished chunks and their files, in order."""
    found = (out / "explanations").glob("part-*.parquet")
    return dict(sorted((int(path.stem.removeprefix("part-")), path) for path in found))


def failures_in(part: Path) -> list[Failure]:
    """The failures of a finished chunk."""
    return [Failure(**one) for one in _footer(part)["failures"]]


def answers_in(part: Path) -> dict[str, int]:
    """How many images of a finished chunk had a label ("labelled"), and how many of those the
    model told ("right"); empty where none had."""
    found: dict[str, int] = _footer(part).get("answers", {})
    return found


def _footer(part: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(pq.read_metadata(part).metadata[FOOTER])
    return told
