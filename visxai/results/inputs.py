"""The ordered input of a run and its division into chunks: inputs.parquet."""

from __future__ import annotations

import os
import uuid
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from visxai import foreign
from visxai.errors import Failure, StoreError
from visxai.images import address
from visxai.images.sources import Found
from visxai.results import moves, sealed
from visxai.results.names import output_name
from visxai.results.rows import Row, text
from visxai.results.settings import START_OVER

_BLOCK = 8192  # rows of the list that are Python objects at once
_SCHEMA = pa.schema(
    [
        ("chunk", pa.int32()),
        ("path", pa.string()),
        ("raw", pa.binary()),  # the path's bytes, where they aren't valid text
        ("name", pa.string()),
        ("size", pa.int64()),
        ("modified", pa.int64()),
        ("reason", pa.string()),
        ("kind", pa.string()),
        ("expected", pa.int32()),  # the class of the label that the image came with
        ("id", pa.string()),  # the caller's own
    ]
)


@dataclass(frozen=True)
class Input:
    """An image of the ordered input.

    Attributes:
        path: The image's address.
        name: The name that the image's outputs begin with.
        failure: The reason why it can't be read, where its source already showed it.
        expected: The class of the label that the image came with, None without a label.
        id: The caller's own identifier of the image, None without one.
    """

    path: str
    name: str
    failure: Failure | None = None
    expected: int | None = None
    id: str | None = None


@dataclass(frozen=True)
class Progress:
    """The state of the chunks when a listing is added.

    Attributes:
        finished: The complete chunks.
        again: The chunks that are explained again.
        divided: The chunks of `again` whose file holds only their first images.
    """

    finished: Collection[int]
    again: Collection[int]
    divided: Collection[int]


class Inputs:
    """The ordered input of the run in `out`, as inputs.parquet lists it."""

    def __init__(self, out: Path) -> None:
        """Read the list, if it exists.

        Raises:
            StoreError: The list is damaged.
        """
        self.out = out
        # By chunk, the new path of each photograph that was found elsewhere, by its old one.
        self.moved: dict[int, dict[str, str]] = {}
        self._table = _read(self.path) if self.path.exists() else _SCHEMA.empty_table()
        self._index()

    @property
    def path(self) -> Path:
        """The file of the list."""
        return self.out / "inputs.parquet"

    def __len__(self) -> int:
        return len(self._table)

    def _index(self) -> None:
        """Look up the first row and the number of images of each chunk."""
        chunks = self._table.column("chunk").to_numpy()
        self._starts = dict(zip(*np.unique(chunks, return_index=True), strict=True))
        sizes = dict(zip(*np.unique(chunks, return_counts=True), strict=True))
        # The number of images of each chunk.
        self.sizes = {int(chunk): int(size) for chunk, size in sizes.items()}

    def of(self, chunk: int) -> list[Input]:
        """Return the images of a chunk, in order."""
        found = []
        for row in self._table.slice(self._starts[chunk], self.sizes[chunk]).to_pylist():
            path = _path(row)
            failed = Failure(path, row["reason"], row["kind"]) if row["reason"] else None
            found.append(Input(path, row["name"], failed, row["expected"], row["id"]))
        return found

    def write(self) -> None:
        """Write the list.

        Raises:
            OSError: The list can't be written.
        """
        sealed.write(self.path, self._table)

    def add(
        self, found: Iterable[Found], size: int, progress: Progress
    ) -> tuple[int, int, set[str]]:
        """Append new images as new chunks, and update images of chunks that are explained again.

        Args:
            found: The images of a listing.
            size: The number of images of a chunk.
            progress: The state of the chunks.

        Returns:
            The number of appended images, the number of images of finished chunks that have changed
            since, and the addresses of all images of the listing.

        Raises:
            StoreError: An image was listed before with another label.
        """
        listed = self._table.to_pylist()
        known = {_path(row): row for row in listed}
        taken = {row["name"] for row in listed}
        met: set[str] = set()
        rows, changed = [], 0
        gone: dict[moves.Key, Row] | None = None
        for one in found:
            met.add(one.path)
            stamp = one.stamp or _stamp(one.path)
            there = known.get(one.path)
            if there is None:
                gone = moves.gone(listed) if gone is None else gone
                there = gone.pop((output_name(one.path, one.root), *stamp), None)
                if there is not None:
                    known[one.path] = self._move(there, one.path)
            if there is None:
                there = known[one.path] = _new(one, taken)
                rows.append(there)
            else:
                self._check_label(one, there)
                if there["chunk"] in progress.finished:
                    changed += _has_changed(one, (there["size"], there["modified"]), stamp)
                if there["chunk"] not in progress.again:
                    continue
            there |= _state(one, stamp)
        if progress.again or self.moved:
            self._table = pa.Table.from_pylist(_relisted(listed, met, progress), schema=_SCHEMA)
            self._index()
        self._append(rows, size)
        return len(rows), changed, met

    def add_in_order(
        self, found: Iterable[Found], size: int, progress: Progress, failed: Collection[str]
    ) -> tuple[int, int, set[str]] | None:
        """Append the new inputs of a listing that names each once, in the order of this list.

        Nothing is looked up by its address, so that a listing of millions needs no more memory than
        the list itself.

        Args:
            found: The listing, whose first inputs are those of this list.
            size: The number of inputs of a chunk.
            progress: The state of the chunks; none may be explained again.
            failed: Addresses of failures.

        Returns:
            As `add`, but of the addresses only those in `failed`; None, with nothing changed, where
            the listing has another order.

        Raises:
            StoreError: An input was listed before with another label.
        """
        before, new, rows = len(self._table), [], []
        met: set[str] = set()
        listed: list[Row] = []
        changed = 0
        first = max(self.sizes, default=-1) + 1
        for position, one in enumerate(found):
            if one.path in failed:
                met.add(one.path)
            if position >= before:
                chunk = first + (position - before) // size
                stamp = one.stamp or _stamp(one.path)
                # The listing names each input once, and so do the names that follow from it.
                rows.append(_new(one, set()) | _state(one, stamp) | {"chunk": chunk})
                if len(rows) == _BLOCK:
                    new.append(pa.Table.from_pylist(rows, schema=_SCHEMA))
                    rows = []
                continue
            if position % _BLOCK == 0:
                listed = self._table.slice(position, _BLOCK).to_pylist()
            there = listed[position % _BLOCK]
            if _path(there) != one.path:
                return None
            self._check_label(one, there)
            if there["chunk"] in progress.finished:
                stamp = one.stamp or _stamp(one.path)
                changed += _has_changed(one, (there["size"], there["modified"]), stamp)
        new.append(pa.Table.from_pylist(rows, schema=_SCHEMA))
        self._table = pa.concat_tables([self._table, *new]).combine_chunks()
        self._index()
        return len(self._table) - before, changed, met

    def _check_label(self, one: Found, there: Row) -> None:
        """Raise StoreError where an input was listed before with another label."""
        if one.expected is not None and one.expected != there["expected"]:
            raise StoreError(
                expected=f"the labels that {self.out} was begun with",
                got=f"another for {foreign.shown(one.path)}",
                remedy=START_OVER,
                field="sources",
            )

    def _move(self, row: Row, path: str) -> Row:
        """Give a listed photograph its new path, and return its row."""
        new, old = text(path), row["path"]
        row |= {"path": new, "raw": None if new == path else os.fsencode(path)}
        self.moved.setdefault(row["chunk"], {})[old] = new
        return row

    def _append(self, rows: Sequence[Row], size: int) -> None:
        """Append rows to the list, divided into new chunks of `size` images."""
        first = max(self.sizes, default=-1) + 1
        numbered = [row | {"chunk": first + index // size} for index, row in enumerate(rows)]
        new = pa.Table.from_pylist(numbered, schema=_SCHEMA)
        self._table = pa.concat_tables([self._table, new]).combine_chunks()
        self._index()


def overlay_stems(out: Path) -> frozenset[str]:
    """Return the names that a run's overlays begin with; return none where its list is damaged."""
    try:
        return frozenset(Inputs(out)._table.column("name").to_pylist())
    except StoreError:
        return frozenset()


def _new(one: Found, taken: set[str]) -> Row:
    """Make the row of an image that isn't listed yet; its name is added to the names `taken`."""
    name = output_name(one.path, one.root)
    if name in taken:  # an image of another folder that is explained into the same OUT
        name += f"~{uuid.uuid5(uuid.NAMESPACE_URL, one.path).hex[:12]}"
    taken.add(name)
    plain = text(one.path)
    raw = None if plain == one.path else os.fsencode(one.path)
    own = {"expected": one.expected, "id": text(one.id)}
    return {"path": plain, "raw": raw, "name": name, **own, "chunk": None}


def _state(one: Found, stamp: address.Stamp) -> Row:
    """Make the columns of an image that may change until it is explained."""
    failure = one.failure
    return {
        "size": stamp[0],
        "modified": stamp[1],
        "reason": failure and text(failure.reason),
        "kind": failure and failure.kind,
    }


def _has_changed(one: Found, before: address.Stamp, now: address.Stamp) -> bool:
    """Tell whether the stamps of an image differ; a URL with an unknown stamp hasn't changed."""
    unknown = address.remote(one.path) and address.UNKNOWN in (before, now)
    return one.failure is None and not unknown and before != now


def _relisted(listed: Sequence[Row], met: set[str], progress: Progress) -> list[Row]:
    """Drop the rows of unreadable images that the listing no longer contains.

    Such a row is of a folder, for example, that couldn't be listed and now can. Only chunks that
    are explained again are affected, and of those not the divided chunks: a divided chunk counts
    its first images, so it keeps them all.
    """
    whole = set(progress.again) - set(progress.divided)
    return [
        row
        for row in listed
        if not (row["chunk"] in whole and row["reason"] and _path(row) not in met)
    ]


def _stamp(path: str) -> address.Stamp:
    """Return the stamp of an image whose listing doesn't state it; UNKNOWN for a URL."""
    return address.UNKNOWN if address.remote(path) else address.stamp(address.Origin.of(path).file)


def _path(row: Row) -> str:
    """Return the address in a row."""
    return os.fsdecode(row["raw"]) if row.get("raw") else str(row["path"])


def _read(path: Path) -> pa.Table:
    """Read the list; columns that an older list lacks are filled with nulls."""
    file = sealed.read(path, START_OVER)
    try:
        table = file.read()
        for name in set(_SCHEMA.names) - set(table.column_names):
            nothing = pa.nulls(len(table), _SCHEMA.field(name).type)
            table = table.append_column(_SCHEMA.field(name), nothing)
        if len(table.column_names) != len(_SCHEMA.names):
            raise sealed.damaged(path, START_OVER)
        return table.select(_SCHEMA.names).cast(_SCHEMA)
    except sealed.DAMAGE as error:
        raise sealed.damaged(path, START_OVER) from error
