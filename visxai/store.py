"""OUT while a run writes it: chunks of the ordered input, each finished whole or not at all.

See `visxai.results` for what lies in OUT.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import shutil
import sys
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from visxai import origin
from visxai.errors import StoreError
from visxai.folders import output_name
from visxai.record import Failure
from visxai.results import (
    EXPORTED,
    FOOTER,
    FORMAT,
    SCHEMA,
    Row,
    about,
    answers_in,
    failures,
    failures_in,
    parts,
    text,
)
from visxai.sources import Found

_FAILURES = pa.schema([("path", pa.string()), ("reason", pa.string()), ("kind", pa.string())])
_INPUTS = pa.schema(
    [
        ("chunk", pa.int32()),
        ("path", pa.string()),
        ("raw", pa.binary()),  # the path's bytes, where they aren't text
        ("name", pa.string()),
        ("size", pa.int64()),
        ("modified", pa.int64()),
        ("reason", pa.string()),
        ("kind", pa.string()),
        ("expected", pa.int32()),  # the class that the image is said to be of
    ]
)
# Settings as the command line has them, and those that follow from others.
_OPTIONS = {
    "model": "--model",
    "methods": "--method",
    "layers": "--layer",
    "metrics": "--metrics",
    "target": "--target",
    "only": "--only",
    "check": "--check",
    "device": "--device",
    "precision": "--precision",
    "accelerate": "--accelerate",
    "batch": "--batch-size",
    "chunk": "--chunk-size",
    "max_pixels": "--limit-pixels",
    "overlays": "--overlay-format",
    "format": "--overlay-format",
    "colormap": "--colormap",
    "panel": "--panel",
}
_FOLLOWS = {
    "model": ("weights", "preprocess", "activation", "labels", "layers"),
    "methods": ("layers",),
}
# Strings that repeat are cut to a dictionary; maps never do.
_REPEATED = [name for name in SCHEMA.names if name not in ("map", "path", "source_sha256")]


@dataclass(frozen=True)
class Input:
    """One image of the ordered input: its address, the stem its outputs are named by, why it
    can't be read, where that was known when it was found, and the class it is said to be of."""

    path: str
    name: str
    failure: Failure | None = None
    expected: int | None = None


class Store:
    """OUT while a run writes it: one process at a time, from `with Store(...)` to its end.

    settings: what must not change between the runs that fill one OUT, as plain values; "chunk"
    is the images of a chunk. command: for the record. fresh: delete what an earlier run left.
    retry: chunks with failures are to be done again; each keeps what it holds until then.
    schema: of the rows, results.SCHEMA and perhaps more.
    """

    def __init__(
        self,
        out: str | os.PathLike[str],
        settings: Mapping[str, Any],
        *,
        command: str = "",
        fresh: bool = False,
        retry: bool = False,
        schema: pa.Schema = SCHEMA,
    ) -> None:
        self.out = Path(os.path.abspath(out))
        self.schema = schema
        self.settings = json.loads(json.dumps(settings))  # as they come back from run.json
        with _one_sentence(self.out):
            self.overlays.mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.out)
            try:
                self._open(command, fresh, retry)
            except BaseException:
                self.close()
                raise

    @property
    def overlays(self) -> Path:
        return self.out / "overlays"

    def __enter__(self) -> Store:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let another process write OUT."""
        os.close(self._lock)

    def _open(self, command: str, fresh: bool, retry: bool) -> None:
        (self.out / "explanations").mkdir(exist_ok=True)
        run = about(self.out)
        there = parts(self.out)
        listed = self.out / "inputs.parquet"
        if there and (run is None or not listed.exists()):
            raise StoreError(
                f"expected {self.out} empty or the results of visxai, got parts of Parquet without "
                "their run.json and inputs.parquet: choose another --out"
            )
        if run is not None and (fresh or not there):
            # Without a finished chunk there is nothing that other settings could mix with.
            _remove(self.out)
            self.overlays.mkdir()
            (self.out / "explanations").mkdir()
            run, there = None, {}
        if run is not None and run["settings"] != self.settings:
            raise StoreError(_difference(self.out, run["settings"], self.settings))
        _sweep(self.out)
        self.again = {chunk for chunk, path in there.items() if retry and failures_in(path)}
        self.finished = set(there) - self.again
        self.seen: dict[bytes, int] = {}
        self.counts = {"images": 0, "finished": 0, "maps": 0, "failures": 0}
        for chunk in sorted(self.finished):
            table = _unlabelled(there[chunk])
            self._count(pq.read_metadata(there[chunk]).num_rows, failures_in(there[chunk]))
            self._answered(answers_in(there[chunk]))
            for digest in table.column(0).unique().to_pylist():
                self.seen.setdefault(bytes.fromhex(digest), chunk)
        self._inputs = _listed(listed) if listed.exists() else _INPUTS.empty_table()
        self._index()
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        self._about = {
            "visxai_results": FORMAT,
            "command": command,
            "started": (run or {}).get("started", now),
            "state": "running",
            "settings": self.settings,
        }
        self.seconds: dict[str, float] = dict((run or {}).get("seconds", {}))

    def _index(self) -> None:
        chunks = self._inputs.column("chunk").to_numpy()
        self._starts = dict(zip(*np.unique(chunks, return_index=True), strict=True))
        sizes = dict(zip(*np.unique(chunks, return_counts=True), strict=True))
        self._sizes = {int(chunk): int(size) for chunk, size in sizes.items()}
        self.counts["images"] = len(chunks)
        self.counts["finished"] = sum(self._sizes[chunk] for chunk in self.finished)

    def _count(self, maps: int, failed: Sequence[Failure]) -> None:
        self.counts["maps"] += maps
        self.counts["failures"] += len(failed)

    def _answered(self, answers: Mapping[str, int]) -> None:
        for name, number in answers.items():
            self.counts[name] = self.counts.get(name, 0) + number

    # ---- what there is to do ---------------------------------------------------------------------

    def add(self, found: Iterable[Found]) -> tuple[int, int]:
        """Append what isn't listed yet as new chunks, and enter what a listing that chunks are
        done again for tells anew.

        Returns how many were appended, and how many finished files have changed since. Raises
        StoreError for an image that was listed with another label.
        """
        listed = self._inputs.to_pylist()
        known = {_path(row): row for row in listed}
        taken = {row["name"] for row in listed}
        met: set[str] = set()
        rows, changed = [], 0
        for one in found:
            met.add(one.path)
            size, modified = one.stamp or _stamp(one.path)
            there = known.get(one.path)
            if there is None:
                name = output_name(one.path, one.root)
                if name in taken:  # another folder's, explained into the same OUT
                    name += f"~{uuid.uuid5(uuid.NAMESPACE_URL, one.path).hex[:12]}"
                taken.add(name)
                plain = text(one.path)
                there = {"path": plain, "name": name, "expected": one.expected, "chunk": None}
                there["raw"] = None if plain == one.path else os.fsencode(one.path)
                known[one.path] = there
                rows.append(there)
            elif one.expected is not None and one.expected != there["expected"]:
                raise StoreError(
                    f"expected the labels that {self.out} was begun with, got another for "
                    f"{origin.shown(one.path)}: choose another --out, or --fresh to delete what is "
                    "there and start over"
                )
            elif there["chunk"] in self.finished:
                before = there["size"], there["modified"]
                unknown = origin.remote(one.path) and origin.UNKNOWN in (before, (size, modified))
                changed += one.failure is None and not unknown and before != (size, modified)
                continue
            elif there["chunk"] not in self.again:
                continue
            there |= {
                "size": size,
                "modified": modified,
                "reason": one.failure and text(one.failure.reason),
                "kind": one.failure and one.failure.kind,
            }
        if self.again:
            self._relist(listed, met)
        self._append(rows)
        return len(rows), changed

    def _relist(self, listed: Sequence[Row], met: set[str]) -> None:
        """The inputs anew: what couldn't be read and isn't found any more (a folder that can be
        listed now) leaves the chunks that are done again."""
        kept = [
            row
            for row in listed
            if not (row["chunk"] in self.again and row["reason"] and _path(row) not in met)
        ]
        with _one_sentence(self.out):
            for chunk in self.again - {row["chunk"] for row in kept}:
                _part(self.out, chunk).unlink(missing_ok=True)
        self._inputs = pa.Table.from_pylist(kept, schema=_INPUTS)

    def _append(self, rows: Sequence[Row]) -> None:
        first = max(self._sizes, default=-1) + 1
        chunk = self.settings["chunk"]
        numbered = [row | {"chunk": first + index // chunk} for index, row in enumerate(rows)]
        new = pa.Table.from_pylist(numbered, schema=_INPUTS)
        self._inputs = pa.concat_tables([self._inputs, new]).combine_chunks()
        self._index()
        with _one_sentence(self.out):
            # First what tells OUT from a stranger's folder, then what it holds.
            self.save()
            if rows or self.again:
                _write(self.out / "inputs.parquet", lambda path: pq.write_table(self._inputs, path))

    def pending(self) -> list[int]:
        """The chunks still to be done, in order."""
        return sorted(chunk for chunk in self._sizes if chunk not in self.finished)

    def size(self, chunk: int) -> int:
        """The images of a chunk."""
        return self._sizes[chunk]

    def inputs(self, chunk: int) -> list[Input]:
        """The files of a chunk, in order."""
        found = []
        for row in self._inputs.slice(self._starts[chunk], self._sizes[chunk]).to_pylist():
            path = _path(row)
            failed = Failure(path, row["reason"], row["kind"]) if row["reason"] else None
            found.append(Input(path, row["name"], failed, row["expected"]))
        return found

    # ---- what is done ----------------------------------------------------------------------------

    def commit(
        self,
        chunk: int,
        rows: Sequence[Row],
        failed: Sequence[Failure],
        answers: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        """Finish a chunk: its rows, its failures and its answers (`results.answers_in`) at once,
        or nothing of them."""
        told = [one.to_dict() | {"path": text(one.path), "reason": one.reason} for one in failed]
        about = {"chunk": chunk, "failures": told} | ({"answers": dict(answers)} if answers else {})
        footer = {FOOTER: json.dumps(about)}
        table = pa.Table.from_pylist(list(rows), schema=self.schema.with_metadata(footer))
        with _one_sentence(self.out):
            _write(
                _part(self.out, chunk),
                lambda path: pq.write_table(
                    table, path, compression="zstd", use_dictionary=_REPEATED
                ),
            )
            self.finished.add(chunk)
            self.counts["finished"] += self._sizes[chunk]
            self._count(len(rows), failed)
            self._answered(answers)
            self.save()

    def rows_of(self, chunk: int, digest: str) -> list[Row]:
        """The rows of a finished chunk about the first image with these bytes and no label."""
        part = _part(self.out, chunk)
        found = pq.read_table(part, filters=[("source_sha256", "=", digest)]).to_pylist()
        rows: list[Row] = [row for row in found if row.get("expected") is None]
        return [row for row in rows if row["path"] == rows[0]["path"]]

    @property
    def accuracy(self) -> float | None:
        """Of the finished images with a label, the share whose class has the greatest score."""
        labelled = self.counts.get("labelled", 0)
        return self.counts["right"] / labelled if labelled else None

    def save(self, state: str = "running") -> None:
        """Write run.json."""
        now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        told = self._about | {
            "state": state,
            "updated": now,
            "counts": self.counts,
            **({"accuracy": self.accuracy} if self.accuracy is not None else {}),
            "seconds": {name: round(value, 3) for name, value in self.seconds.items()},
        }
        text = json.dumps(told, indent=2, ensure_ascii=True)
        _write(self.out / "run.json", lambda path: path.write_text(text + "\n", "utf-8"))

    def finish(self, state: str) -> None:
        """Write failures.parquet, and run.json with the state: "complete" or "interrupted"."""
        rows = [one.to_dict() for one in failures(self.out)]
        table = pa.Table.from_pylist(rows, schema=_FAILURES)
        with _one_sentence(self.out):
            _write(self.out / "failures.parquet", lambda path: pq.write_table(table, path))
            self.save(state)


def _write(path: Path, write: Callable[[Path], object]) -> None:
    """A file written aside, synced and renamed: whole, or not at all."""
    partial = path.with_name(f".{uuid.uuid4().hex}.part")
    try:
        write(partial)
        with partial.open("rb+") as file:
            os.fsync(file.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # a folder can't be opened everywhere
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _sweep(out: Path) -> None:
    """Remove what a killed process was still writing."""
    for folder, _, names in os.walk(out):
        for name in names:
            if name.startswith(".") and name.endswith(".part"):
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(os.path.join(folder, name))


def _remove(out: Path) -> None:
    """What a run wrote, what `visxai report` and `visxai export` made of it, and nothing else;
    run.json last, as it says whose the rest is."""
    for name in ("explanations", "overlays", "report/pictures"):
        if (out / name).exists():
            shutil.rmtree(out / name)
    for mark in (out / "export").glob(f"*/{EXPORTED}"):
        shutil.rmtree(mark.parent)
    for name in ("report/index.html", "report.html"):
        (out / name).unlink(missing_ok=True)
    for name in ("report", "export"):
        with contextlib.suppress(OSError):  # it isn't there, or holds something of somebody else's
            (out / name).rmdir()
    for name in ("failures.parquet", "inputs.parquet", "run.json"):
        (out / name).unlink(missing_ok=True)


def _locked(out: Path) -> int:
    """An open file that holds OUT's lock; the system frees it when the process ends."""
    lock = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o644)
    try:
        if sys.platform == "win32":
            import msvcrt

            msvcrt.locking(lock, msvcrt.LK_NBLCK, 1)
        else:
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(lock)
        raise StoreError(
            f"expected {out} free, got it while another process writes it: wait for that run, or "
            "choose another --out"
        ) from None
    return lock


@contextlib.contextmanager
def _one_sentence(out: Path) -> Iterator[None]:
    """What the system says about a full disk or a forbidden folder, as a StoreError."""
    try:
        yield
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise StoreError(
            f"expected to write below {out}, got: {reason}; make room there or choose another "
            "--out (what is finished is kept, the same command goes on from there)"
        ) from error


def _difference(out: Path, old: Mapping[str, Any], new: Mapping[str, Any]) -> str:
    names = [name for name in {**old, **new} if old.get(name) != new.get(name)]
    for cause, effects in _FOLLOWS.items():
        if cause in names:
            names = [name for name in names if name not in effects]
    told, now = (", ".join(_told(name, one.get(name)) for name in names) for one in (old, new))
    return (
        f"expected the settings that {out} was begun with ({told}), got {now}: give those, choose "
        "another --out, or --fresh to delete what is there and start over"
    )


def _told(name: str, value: Any) -> str:
    """A setting as its option is written, where it has one."""
    if isinstance(value, dict):  # how overlays are drawn
        parts = (_told(part, inner) for part, inner in value.items() if inner not in (None, False))
        return " ".join(parts)
    option = _OPTIONS.get(name, name)
    if value is True:
        return option
    values = value if isinstance(value, list) else [value]
    told = ",".join(dict.fromkeys(str(one) for one in values if one is not None))
    if not told:
        return f"{option} none" if name == "overlays" else f"no {option}"
    return f"{option} {told}" if len(told) <= 80 else f"{option} {told[:79]}…"


def _part(out: Path, chunk: int) -> Path:
    return out / "explanations" / f"part-{chunk:05d}.parquet"


def _stamp(path: str) -> origin.Stamp:
    """Of what no listing told the size of; URLs aren't asked one by one."""
    return origin.UNKNOWN if origin.remote(path) else origin.stamp(origin.Origin.of(path).file)


def _path(row: Row) -> str:
    """The address in a row of inputs.parquet."""
    return os.fsdecode(row["raw"]) if row.get("raw") else str(row["path"])


def _listed(path: Path) -> pa.Table:
    """inputs.parquet; the columns that an older one lacks are empty."""
    table = pq.read_table(path)
    for name in _INPUTS.names[table.num_columns :]:
        table = table.append_column(
            _INPUTS.field(name), pa.nulls(len(table), _INPUTS.field(name).type)
        )
    return table


def _unlabelled(part: Path) -> pa.Table:
    """The digests of a part's images that came without a label: the others are no copies."""
    there = [name for name in ("source_sha256", "expected") if name in pq.read_schema(part).names]
    table = pq.read_table(part, columns=there)
    return table.filter(table.column("expected").is_null()) if "expected" in there else table
