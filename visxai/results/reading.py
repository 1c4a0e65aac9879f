"""The store of a folder run: what was finished stays finished, whatever kills the process.

    OUT/explanations/part-00000.parquet   one row an image, method and class
    OUT/overlays/...                      the pictures, named after their images
    OUT/failures.parquet                  what could not be explained, and why
    OUT/scores.parquet                    what the model scores each image, explained or not
    OUT/inputs.parquet                    the ordered input and its cut into chunks
    OUT/run.json                          command, settings, versions, counts, seconds by stage
    OUT/report, report.html, export       what `visxai report` and `visxai export` made of it

The ordered input is cut into fixed chunks. A chunk's rows and failures are one Parquet part (the
failures in its footer), written aside, synced and renamed. A part holds the first images of its
chunk, mostly all; a slow run writes it again as more of them are done, so that little is lost when
it is killed. Parts, inputs.parquet and run.json carry checksums, and a damaged one is refused.
Everything else can be derived from the parts and is rewritten when a run opens or ends. Files
found later become new chunks. Rows hold every field of the record (`Explanation.row`), `overlay`
(the picture's name below OUT/overlays), `expected` (the label that the image came with, as the
model calls it, null where it had none), and `quality` and `versions` as JSON.

    for explanation in visxai.results.read("OUT"): ...
    pandas.read_parquet("OUT/explanations")
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq

from visxai.errors import Failure, StoreError, VisxaiError
from visxai.record.base import Explanation
from visxai.record.image import ImageExplanation
from visxai.record.scores import Scores, unpack
from visxai.results import sealed
from visxai.results.rows import SCHEMA, image_of, of_row

FORMAT = 2  # 1 has neither checksums nor parts that hold the beginning of a chunk
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
_REMEDY = "delete it, and the command that wrote it explains its images again"
FOOTER = b"visxai"  # where a part's footer holds its failures and its answers, as JSON
EXPORTED = ".visxai-export"  # the file that marks a folder as an export


@dataclass(frozen=True)
class Part:
    """What a chunk's file holds, read into memory and checked.

    Attributes:
        path: The file.
        images: How many of the chunk's images are done, from its first on; None for all, as in
            files of format 1.
        failures: Those of the images that could not be explained, in order.
        answers: How many images had a label ("labelled"), and how many of those the model gave
            the greatest score ("right"); of a run with a gate, how many were scored ("scored")
            and how many of those explained ("explained").
        scores: What the model scored the images, in order; none in files of older versions.
    """

    path: Path
    images: int | None
    failures: tuple[Failure, ...]
    answers: dict[str, int]
    scores: tuple[Scores, ...]
    _file: pq.ParquetFile

    @classmethod
    def read(cls, path: Path) -> Part:
        """Reads a part.

        Raises:
            StoreError: The file is damaged, or another chunk's.
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
        """Returns the rows, of `columns` those that the file has: older ones have fewer."""
        try:
            known = self._file.schema_arrow.names
            wanted = None if columns is None else [name for name in columns if name in known]
            return self._file.read(columns=wanted)
        except sealed.DAMAGE as error:
            raise sealed.damaged(self.path, _REMEDY) from error


def read(out: str | os.PathLike[str]) -> Iterator[Explanation]:
    """Yields the explanations below OUT in the order of the input, one part in memory at a time.

    Raises:
        StoreError: OUT is no run's, or a file in it is damaged.
    """
    for path in parts(_checked(out)).values():
        for row in Part.read(path).table().to_pylist():
            try:
                explanation = of_row(row)
            except VisxaiError:
                raise
            except (*sealed.DAMAGE, AttributeError, zlib.error) as error:
                raise sealed.damaged(path, _REMEDY) from error
            yield explanation


def tables(out: str | os.PathLike[str], columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
    """Yields the rows below OUT part by part, checked; of `columns` those that a part has.

    Raises:
        StoreError: OUT is no run's, or a file in it is damaged.
    """
    for path in parts(_checked(out)).values():
        yield Part.read(path).table(columns)


def count(out: str | os.PathLike[str]) -> int:
    """Counts the rows below OUT by what the files say, which only reading them checks."""
    rows = 0
    for path in parts(_checked(out)).values():
        try:
            rows += int(pq.read_metadata(path).num_rows)
        except sealed.DAMAGE as error:
            raise sealed.damaged(path, _REMEDY) from error
    return rows


def read_images(out: str | os.PathLike[str]) -> Iterator[ImageExplanation]:
    """Read the explanations below OUT as `read` does, all of them about images.

    Raises:
        ArgumentError: For rows about another kind of input.
    """
    for part in parts(_checked(out)).values():
        yield from map(image_of, pq.read_table(part).to_pylist())


def dataset(out: str | os.PathLike[str]) -> Any:
    """Returns the rows below OUT as one `pyarrow.dataset.Dataset`.

    It reads what a query needs, so pages are checked, but not whole files.
    """
    paths = [str(path) for path in parts(_checked(out)).values()]
    scanning = pyarrow.dataset.ParquetFragmentScanOptions(page_checksum_verification=True)
    form = pyarrow.dataset.ParquetFileFormat(default_fragment_scan_options=scanning)
    return pyarrow.dataset.dataset(paths, schema=SCHEMA, format=form)


def failures(out: str | os.PathLike[str]) -> list[Failure]:
    """Returns what could not be explained below OUT so far, in the order of the input."""
    return [one for path in parts(_checked(out)).values() for one in Part.read(path).failures]


def scores(out: str | os.PathLike[str]) -> pa.Table:
    """Returns what the model scored each image below OUT, whether it was explained or not.

    Runs keep at most five classes an image, the greatest score first, as the model reports them:
    probabilities for softmax and sigmoid models.

    Returns:
        A table with one row an image, in the order of the input: path; explained, whether it has
        explanations; gate, the score that --only compared, null without a gate on scores;
        classes, labels and scores, lists of equal length (null for a score that isn't finite).
        Images that were explained by a version that kept no scores have no row.

    Raises:
        StoreError: OUT is no run's, or a file in it is damaged.
    """
    found = [one for path in parts(_checked(out)).values() for one in Part.read(path).scores]
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
    if about(Path(out)) is None:
        raise StoreError(
            f"expected a folder that `visxai explain --out` wrote, got {os.fspath(out)}: "
            "check the path"
        )
    return Path(out)


def about(out: Path) -> dict[str, Any] | None:
    """Returns what run.json says, or None where there is none that visxai wrote.

    Raises:
        StoreError: It is damaged, or of a format that this version doesn't read.
    """
    try:
        told = json.loads((out / "run.json").read_text("utf-8"))
    except (OSError, ValueError):
        return None
    if not isinstance(told, dict) or "visxai_results" not in told:
        return None
    if told["visxai_results"] not in _READABLE:
        raise StoreError(
            f"expected results of format {FORMAT} in {out}, got {told['visxai_results']!r}: "
            "use the visxai that wrote them, or another --out"
        )
    if (told["visxai_results"] > 1 or "sha256" in told) and told.get("sha256") != checksum(told):
        raise StoreError(
            f"expected {out / 'run.json'} as visxai wrote it, got it changed or damaged: restore "
            "it, or choose another --out"
        )
    return told


def checksum(about: Mapping[str, Any]) -> str:
    """Returns the SHA-256 of what run.json says, its own entry left out."""
    rest = {name: value for name, value in about.items() if name != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def parts(out: Path) -> dict[int, Path]:
    """Returns the chunks of which images are done, and their files, in order."""
    found = (path for path in (out / "explanations").glob("part-*.parquet") if _PART(path.name))
    return dict(sorted((chunk_of(path), path) for path in found))


def part_of(out: Path, chunk: int) -> Path:
    """Returns the place of a chunk's file."""
    return out / "explanations" / f"part-{chunk:05d}.parquet"


def chunk_of(part: Path) -> int:
    """Returns the number of the chunk whose file this is."""
    return int(part.stem.removeprefix("part-"))
