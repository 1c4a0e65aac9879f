"""Reads the results of a run: its parts, tables and run.json.

    OUT/explanations/part-00000.parquet   a row for each image, method and class
    OUT/overlays/...                      the pictures, named after their images
    OUT/failures.parquet                  the images that could not be explained, and the reasons
    OUT/scores.parquet                    the model's scores for each image, explained or not
    OUT/inputs.parquet                    the ordered input and its division into chunks
    OUT/run.json                          command, settings, versions, counts, seconds by stage
    OUT/report, report.html, export       the output of `visxai report` and `visxai export`

The ordered input is divided into fixed chunks. A chunk's rows and failures are one Parquet file, a
part (the failures in its footer), written aside, synced and renamed: what was finished stays
finished, whatever kills the process. A part holds the first images of its chunk, mostly all of
them; a slow run rewrites it as more of them are done, so that little is lost when it is killed.
Parts, inputs.parquet and run.json contain checksums, and a damaged file is refused. Everything else
is derived from the parts and is rewritten when a run opens or ends. Files found later become new
chunks. Rows hold every field of the record (`Explanation.row`), `overlay` (the picture's name below
OUT/overlays), `expected` (the label that the image came with, as the model names it, null without
a label), and `quality` and `versions` as JSON.

    for explanation in visxai.results.read("OUT"): ...
    pandas.read_parquet("OUT/explanations")
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from visxai.errors import Argument, Failure, StoreError, VisxaiError
from visxai.record.base import Explanation
from visxai.record.image import ImageExplanation
from visxai.record.scores import Scores, unpack
from visxai.results import sealed
from visxai.results.rows import image_of, of_row, schema_of

FORMAT = 2  # format 1 has neither checksums nor parts that hold only a chunk's first images
_READABLE = (1, 2)

_SCORES = pa.schema(
    [
        ("path", pa.string()),
        ("explained", pa.bool_()),
        ("gate", pa.float32()),
        ("classes", pa.list_(pa.int32())),
        ("labels", pa.list_(pa.string())),
        ("scores", pa.list_(pa.float32())),
    ]
)

_PART = re.compile(r"part-(?:[0-9]{5}|[1-9][0-9]{5,})\.parquet").fullmatch
E = TypeVar("E", bound=Explanation)

_REMEDY = "delete it, and the command that wrote it explains its images again"
FOOTER = b"visxai"  # the key in a part's footer of its failures and its answers, as JSON
EXPORTED = ".visxai-export"  # the file that marks a folder as an export


@dataclass(frozen=True)
class Part:
    """The content of a chunk's file, read into memory and verified.

    Attributes:
        path: The file.
        images: The number of the chunk's images that are done, from its first on; None for all of
            them, as in files of format 1.
        failures: The failures of these images, in order.
        answers: The number of images with a label ("labelled"), and of those whose label the model
            gave the greatest score ("right"); in a run with a gate, the number of scored images
            ("scored") and of those that were explained ("explained").
        scores: The model's scores for the images, in order; empty in files of older versions.
    """

    path: Path
    images: int | None
    failures: tuple[Failure, ...]
    answers: dict[str, int]
    scores: tuple[Scores, ...]
    _file: pq.ParquetFile

    @classmethod
    def read(cls, path: Path) -> Part:
        """Read a part.

        Raises:
            StoreError: The file is damaged, or belongs to another chunk.
        """
        file = sealed.read(path, _REMEDY)
        try:
            footer = json.loads(file.metadata.metadata[FOOTER])
            if footer["chunk"] != chunk_of(path):
                raise ValueError("another chunk's")
            failed = tuple(Failure(**one) for one in footer["failures"])
            scores = unpack(footer["scores"]) if "scores" in footer else ()
            answers = footer.get("answers", {})
            return cls(path, footer.get("images"), failed, answers, scores, file)
        except sealed.DAMAGE as error:
            raise sealed.damaged(path, _REMEDY) from error

    def __len__(self) -> int:
        return int(self._file.metadata.num_rows)

    def table(self, columns: Sequence[str] | None = None) -> pa.Table:
        """Read the rows.

        Args:
            columns: The columns, all by default; those that the file lacks are left out, as older
                files have fewer.

        Raises:
            StoreError: The file is damaged.
        """
        try:
            known = self._file.schema_arrow.names
            wanted = None if columns is None else [name for name in columns if name in known]
            return self._file.read(columns=wanted)
        except sealed.DAMAGE as error:
            raise sealed.damaged(self.path, _REMEDY) from error


def read(out: str | os.PathLike[str]) -> Iterator[Explanation]:
    """Yield the explanations below OUT in the order of the input, one part in memory at a time.

    Args:
        out: The folder of a run.

    Raises:
        StoreError: OUT is no run's, or a file in it is damaged.
        ArgumentError: A row isn't as the published schema says.
    """
    return _read(out, of_row)


def read_images(out: str | os.PathLike[str]) -> Iterator[ImageExplanation]:
    """Yield the explanations below OUT as `read` does, all of them about images.

    Args:
        out: The folder of a run.

    Raises:
        StoreError: OUT is no run's, or a file in it is damaged.
        ArgumentError: A row isn't as the published schema says, or is about another kind of input.
    """
    return _read(out, image_of)


def _read(out: str | os.PathLike[str], of: Callable[[Mapping[str, Any]], E]) -> Iterator[E]:
    for path in parts(_checked(out)).values():
        for row in Part.read(path).table().to_pylist():
            try:
                explanation = of(row)
            except VisxaiError:
                raise
            except (*sealed.DAMAGE, AttributeError, zlib.error) as error:
                raise sealed.damaged(path, _REMEDY) from error
            yield explanation


def tables(out: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yield the rows below OUT as a verified table for each part.

    Args:
        out: The folder of a run.
        columns: The columns, all by default; those that a part lacks are left out.

    Raises:
        StoreError: OUT isn't a run's folder, or a file in it is damaged.
    """
    for path in parts(_checked(out)).values():
        yield Part.read(path).table(columns)


def count(out: str | os.PathLike[str]) -> int:
    """Count the rows below OUT by the metadata of the files, which isn't verified.

    Raises:
        StoreError: OUT isn't a run's folder, or a file's metadata is damaged.
    """
    rows = 0
    for path in parts(_checked(out)).values():
        try:
            rows += int(pq.read_metadata(path).num_rows)
        except sealed.DAMAGE as error:
            raise sealed.damaged(path, _REMEDY) from error
    return rows


def dataset(out: str | os.PathLike[str]) -> Any:
    """Open the rows below OUT as a `pyarrow.dataset.Dataset`.

    It reads only what a query needs, so pages are verified, but not whole files.

    Raises:
        StoreError: OUT isn't a run's folder.
    """
    import pyarrow.dataset  # brings pandas with it where that is installed

    paths = [str(path) for path in parts(_checked(out)).values()]
    scanning = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=scanning)
    kind = ((about(Path(out)) or {}).get("settings") or {}).get("kind", "image")
    return pyarrow.dataset.dataset(paths, schema=schema_of(kind), format=form)


def failures(out: str | os.PathLike[str]) -> list[Failure]:
    """List the images below OUT that could not be explained so far, in the order of the input.

    Raises:
        StoreError: OUT isn't a run's folder, or a file in it is damaged.
    """
    return [one for path in parts(_checked(out)).values() for one in Part.read(path).failures]


def scores(out: str | os.PathLike[str]) -> pa.Table:
    """Read the model's scores for each image below OUT, whether it was explained or not.

    Runs keep at most five classes an image, the greatest score first: probabilities for softmax and
    sigmoid models.

    Returns:
        A table with a row for each image, in the order of the input: path; explained, whether the
        image has explanations; gate, the score that --only compared, null without a gate on scores;
        classes, labels and scores, lists of equal length (null for a score that isn't finite).
        Images that were explained by a version that kept no scores have no row.

    Raises:
        StoreError: OUT isn't a run's folder, or a file in it is damaged.
    """
    # Part by part, as Python objects take many times the memory of a table.
    found = [_table_of(Part.read(path).scores) for path in parts(_checked(out)).values()]
    return pa.concat_tables([_SCORES.empty_table(), *found])


def _table_of(found: Sequence[Scores]) -> pa.Table:
    columns: dict[str, list[Any]] = {
        "path": [one.path for one in found],
        "explained": [one.explained for one in found],
        "gate": [one.gate for one in found],
        "classes": [one.classes for one in found],
        "labels": [one.labels for one in found],
        "scores": [one.values for one in found],
    }
    return pa.table(columns, schema=_SCORES)


def _checked(out: str | os.PathLike[str]) -> Path:
    """Return OUT as a path; raise StoreError where it isn't a run's folder."""
    if about(Path(out)) is None:
        raise StoreError(
            f"expected a folder that `visxai explain --out` wrote, got {os.fspath(out)}: "
            "check the path"
        )
    return Path(out)


def about(out: Path) -> dict[str, Any] | None:
    """Read run.json; return None where visxai wrote none.

    Raises:
        StoreError: The file is damaged, or of a format that this version can't read.
    """
    try:
        told = json.loads((out / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or "visxai_results" not in told:
        return None
    if told["visxai_results"] not in _READABLE:
        raise StoreError(
            expected=f"results of format {FORMAT} in {out}",
            got=repr(told["visxai_results"]),
            remedy=("use the visxai that wrote them, or another ", Argument("out")),
            field="out",
        )
    if (told["visxai_results"] > 1 or "sha256" in told) and told.get("sha256") != checksum(told):
        raise StoreError(
            expected=f"{out / 'run.json'} as visxai wrote it",
            got="it changed or damaged",
            remedy=("restore it, or choose another ", Argument("out")),
            field="out",
        )
    return told


def checksum(about: Mapping[str, Any]) -> str:
    """Compute the SHA-256 (hex) of run.json's content without its own entry."""
    rest = {name: value for name, value in about.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def parts(out: Path) -> dict[int, Path]:
    """Map the chunks with finished images to their files, in order."""
    found = (path for path in (out / "explanations").glob("part-*.parquet") if _PART(path.name))
    return dict(sorted((chunk_of(path), path) for path in found))


def part_of(out: Path, chunk: int) -> Path:
    """Return the path of a chunk's file."""
    return out / "explanations" / f"part-{chunk:05d}.parquet"


def chunk_of(part: Path) -> int:
    """Return the number of the chunk that a file belongs to."""
    return int(part.stem.removeprefix("part-"))
