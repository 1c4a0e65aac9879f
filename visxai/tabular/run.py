"""A run over the rows of tables into a folder of results, which goes on where it was stopped.

The folder is laid out like that of a run over images (`visxai.results.reading`), without pictures:
`visxai report`, `visxai export --to csv` and `visxai govern` read it, and so does
`visxai.results.read`. A row's address is its table and its number from 1,
"/data/applicants.parquet#row=12".
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import pyarrow as pa

from visxai.errors import ArgumentError, UnknownName
from visxai.foreign import shown
from visxai.images.sources import Found
from visxai.images.tables import IDS
from visxai.pipeline.items import Answer, ItemRun
from visxai.pipeline.progress import Outcome, Progress
from visxai.record.scores import Scores
from visxai.record.table import TableExplanation
from visxai.results.inputs import Input
from visxai.results.rows import row_of, schema_of, text
from visxai.results.store import Store
from visxai.tabular import tables
from visxai.tabular.engine import Engine

_CHUNK = 1024  # rows that are finished together


def explain(
    sources: Sequence[str | os.PathLike[str]],
    out: str | os.PathLike[str],
    engine: Engine,
    *,
    label_column: str | None = None,
    chunk_size: int | None = None,
    fresh: bool = False,
    retry_failures: bool = False,
    command: str = "",
    progress: Callable[[Progress], None] = lambda _: None,
    stop: Callable[[], bool] = lambda: False,
) -> Outcome:
    """Explain the rows of tables into the folder OUT.

    The run continues an earlier run of the same settings in OUT. Rows that can't be explained are
    listed in OUT's failures and don't end the run. Tables are read chunk by chunk: a run over
    millions of rows holds their addresses and not their values.

    Args:
        sources: Tables (.csv, .parquet).
        out: The folder OUT for the results.
        engine: The engine that explains.
        label_column: The column with the true outcome of a classifier: true or false, 1 or 0, or
            the engine's label; None for none.
        chunk_size: Rows that are finished together; None is 1,024.
        fresh: Delete the results of an earlier run in OUT first.
        retry_failures: Compute again the chunks in which an earlier run had failures.
        command: The command line to keep in OUT's run.json.
        progress: Called at the start and after each chunk.
        stop: Called before each chunk; if it returns True the run ends, and OUT keeps what is
            finished.

    Returns:
        The outcome of the run.

    Raises:
        VisxaiError: An argument is wrong or OUT can't be written; finished rows stay finished.
    """
    if label_column is not None and engine.model.scale == "response":
        raise ArgumentError(
            f"expected a classifier to compare with the column {label_column!r}, got "
            f"{engine.model.name}: leave the column out",
            field="label_column",
        )
    held = {os.path.abspath(one): _Table(engine, one, label_column) for one in sources}
    listed = _Listing(held, label_column)
    if next(iter(listed), None) is None:
        names = ", ".join(shown(os.fspath(one)) for one in sources)[:200]
        raise ArgumentError(f"expected rows in {names}, got none: check the tables")
    with Store(
        out,
        _settings(engine, chunk_size or _CHUNK),
        command=command,
        fresh=fresh,
        retry=retry_failures,
        schema=schema_of("table"),
    ) as store:
        _, changed = store.add(listed, ordered=True)
        run = _Run(store, engine, held)
        return run.tally.ended(run.all(progress, stop), changed)


class _Table:
    """The rows of a table's file, read forward: a run asks for them in order, chunk by chunk.

    Attributes:
        count: How many rows it has, once it has been listed.
    """

    def __init__(self, engine: Engine, source: str | os.PathLike[str], label: str | None) -> None:
        """Find what a run needs: scored, protected, identifying and true columns.

        Raises:
            UnknownName: There is no such column of labels.
            ArgumentError: A scored column is missing.
        """
        names = engine.model.features.names
        known = tables.column_names(source)
        if label is not None and label not in known:
            raise UnknownName(f"column of {shown(os.fspath(source))}", label, known)
        lacking = [one for one in names if one not in known]
        if lacking:
            raise ArgumentError(
                f"expected a table with the columns {', '.join(names)}, got one without "
                f"{lacking[0]!r}: add it",
                field="sources",
            )
        wanted = [*names, *engine.protected, *([] if label is None else [label])]
        self.id = next((one for one in known if one.casefold() in IDS), None)
        wanted += [self.id] if self.id else []
        self._source, self._columns = source, list(dict.fromkeys(wanted))
        self.count = 0
        self._rest, self._first = self.batches(), 0
        self._held: pa.Table | None = None

    def batches(self) -> Iterator[pa.Table]:
        """Read all rows."""
        return (one.table for one in tables.batches(self._source, self._columns, _CHUNK))

    def slice(self, first: int, count: int) -> pa.Table:
        """Read some rows; those before them are let go.

        Args:
            first: The first row's position, from 0.
            count: How many.
        """
        if first < self._first:
            self._rest, self._first, self._held = self.batches(), 0, None
        while (held := self._held.num_rows if self._held else 0) < first - self._first + count:
            more = next(self._rest, None)
            if more is None:
                break
            self._held = more if self._held is None else pa.concat_tables([self._held, more])
            gone = min(first - self._first, held + more.num_rows)
            self._held, self._first = self._held.slice(gone), self._first + gone
        if self._held is None:
            return pa.table({})
        return self._held.slice(first - self._first, count)


class _Listing:
    """The rows of tables, as the store of a run lists inputs; it can be read again."""

    def __init__(self, held: Mapping[str, _Table], label: str | None) -> None:
        self._held, self._label = held, label

    def __iter__(self) -> Iterator[Found]:
        names = [os.path.basename(path) for path in self._held]
        for path, table in self._held.items():
            # Tables of one name in several folders are told apart by their folders.
            root = os.path.dirname(path) if names.count(os.path.basename(path)) == 1 else ""
            row = 0
            for batch in table.batches():
                for cells in batch.to_pylist():
                    row += 1
                    # In place of a file's size and time: a row that has changed is noticed.
                    data = repr(cells).encode("utf-8", "surrogatepass")
                    own = None if table.id is None else cells[table.id]
                    yield Found(
                        f"{path}#row={row}",
                        root,
                        expected=None
                        if self._label is None
                        else _truth(cells[self._label], self._label),
                        stamp=(len(data), zlib.crc32(data)),
                        id=None if own is None else str(own),
                    )
            table.count = row


def _truth(cell: Any, column: str) -> int | None:
    """Read a true outcome: 1 for favourable, 0 for not, None where it is missing."""
    said = str(cell).casefold()
    if cell is None or said == "":
        return None
    if said in ("true", "1", "1.0", "yes"):
        return 1
    if said in ("false", "0", "0.0", "no"):
        return 0
    raise ArgumentError(
        f"expected true or false, or 1 or 0, in the column {column!r}, got {shown(str(cell))[:60]}:"
        " correct it or leave the column out",
        field="label_column",
    )


def _settings(engine: Engine, chunk: int) -> dict[str, Any]:
    """Collect the settings that all runs into one OUT must share."""
    features = engine.model.features
    return {
        "kind": "table",
        "model": engine.model.name,
        "weights": engine.model.sha256,
        "features": {one.name: list(one.levels) for one in features.items},
        "methods": [repr(engine.method)],
        "target": engine.label,
        "scale": engine.scale,
        "threshold": engine.threshold,
        "background": engine.explained_against,
        "excluded": list(engine.excluded),
        "protected": list(engine.protected),
        "device": "cpu",
        "precision": "fp64",
        "chunk": chunk,
        "overlays": None,
    }


class _Run(ItemRun):
    """A run over rows of tables."""

    noun = "row"

    def __init__(self, store: Store, engine: Engine, held: Mapping[str, _Table]) -> None:
        super().__init__(store)
        self.engine, self.held = engine, held

    def holds(self, one: Input) -> bool:
        return self._place(one) is not None

    def batch(self, inputs: Sequence[Input]) -> list[Answer]:
        answers = []
        for one, made in zip(inputs, self._records(inputs), strict=True):
            expected = right = None
            if one.expected is not None:
                expected = made.label if one.expected else f"not {made.label}"
                if made.outcome is not None:
                    right = made.outcome == expected
            classes = (0 if made.class_index is None else made.class_index,)
            scores = Scores(text(one.path), classes, (made.label,), (made.score,))
            answers.append(Answer([row_of(made, None, expected)], scores, right))
        return answers

    def _records(self, inputs: Sequence[Input]) -> Iterator[TableExplanation]:
        """Explain rows, table by table."""
        start = 0
        while start < len(inputs):
            path, first = self._place(inputs[start]) or ("", 0)
            end = start + 1
            while end < len(inputs) and self._place(inputs[end]) == (path, first + end - start):
                end += 1
            part = self.held[path].slice(first, end - start)
            for block in self.engine.stream(part, _CHUNK):
                moved = replace(block, first=first + block.first)
                for one in self.engine.records(moved, path):
                    asked = inputs[start + one.input.row - first]
                    yield replace(one, id=asked.id)
            start = end

    def _place(self, one: Input) -> tuple[str, int] | None:
        """Return an input's table and row from 0, None where no source of this run holds it."""
        path, _, row = one.path.rpartition("#row=")
        at = int(row) - 1
        return (path, at) if path in self.held and at < self.held[path].count else None
