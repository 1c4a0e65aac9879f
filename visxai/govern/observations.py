"""Explained items in the order of time, as columns of numbers: what governance compares.

    seen = govern.observe("OUT")                              a folder run
    seen = govern.observe(explanations, groups={"sex": […]})  explanations in memory
    seen.side("explanation")                                  names and values (items, features)

Three sides are kept apart, because a drift of one isn't a drift of the others:

    input         statistics of the inputs, where they were measured
    score         what the model answers: score, logit, and which of its most frequent classes
    explanation   the features of `govern.features`
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError, ImageError
from visxai.govern.cells import measure_rows
from visxai.govern.features.base import measure
from visxai.govern.metadata import read_metadata
from visxai.govern.pixels import measure_image
from visxai.govern.regions import PREFIX, measure_regions
from visxai.images import address
from visxai.record.base import Explanation
from visxai.record.image import ImageExplanation
from visxai.record.pair import PairExplanation
from visxai.record.table import TableExplanation
from visxai.references import RowRef
from visxai.results import reading
from visxai.results.rows import of_row, record_of

Array = NDArray[np.float64]
T = TypeVar("T")
SIDES = ("input", "score", "explanation")
DECISIONS = ("error", "favourable", "calibration")  # figures of answers, beside their scores
_CLASSES = 10  # classes whose shares belong to the score's side, the most frequent


@dataclass(frozen=True)
class Observations:
    """Items in order, a value each in every column.

    Attributes:
        ids: What names each item: its path, or the sha256 of its content.
        created: When each was explained, UTC, as ISO 8601.
        model: The model's name; the first item's.
        weights: The SHA-256 of the model's weights; the first item's.
        labels: The explained classes.
        expected: The true classes as the caller knows them, None where unknown.
        scores: The scores.
        logits: The explained scalars.
        explanations: The features of the explanations by name; NaN where not defined.
        inputs: Statistics of the inputs by name, empty where none were measured.
        groups: What the caller says of each item (columns of metadata), None where unknown.
        decisions: Figures of the answers, NaN where unknown: "error" (1 where the answer isn't the
            truth, else 0), and of rows of tables "favourable" (1 or 0) and "calibration" (the score
            minus the true outcome, 1 or 0).
    """

    ids: tuple[str, ...]
    created: tuple[str, ...]
    model: str
    weights: str
    labels: tuple[str, ...]
    expected: tuple[str | None, ...]
    scores: Array
    logits: Array
    explanations: Mapping[str, Array]
    inputs: Mapping[str, Array] = field(default_factory=dict)
    groups: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    decisions: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.ids)

    def side(self, name: str, classes: Sequence[str] = ()) -> tuple[list[str], Array]:
        """Return one side of the items as a table.

        Args:
            name: "input", "score" or "explanation".
            classes: The classes whose shares belong to the score's side.

        Returns:
            The columns' names and float64 (items, columns).

        Raises:
            ArgumentError: There is no such side.
        """
        if name == "score":
            labels = np.asarray(self.labels, dtype=object)
            columns = {"score": self.scores, "logit": self.logits}
            columns |= {f"class={one}": (labels == one).astype(np.float64) for one in classes}
        elif name == "explanation":
            columns = dict(self.explanations)
        elif name == "input":
            columns = dict(self.inputs)
        else:
            raise ArgumentError(f"expected one of {', '.join(SIDES)}, got {name!r}")
        values = list(columns.values())
        return list(columns), np.stack(values, 1) if values else np.empty((len(self), 0))

    def frequent(self) -> list[str]:
        """List the most frequent classes, at most ten."""
        names, counts = np.unique(np.asarray(self.labels, dtype=str), return_counts=True)
        return [str(one) for one in names[np.argsort(-counts, kind="stable")][:_CLASSES]]

    def take(self, chosen: slice | Sequence[int] | NDArray[Any]) -> Observations:
        """Select items.

        Args:
            chosen: A slice, or positions in the order wanted.
        """
        at = np.arange(len(self))[chosen]

        def some(values: Sequence[Any]) -> tuple[Any, ...]:
            return tuple(values[int(one)] for one in at)

        return Observations(
            some(self.ids),
            some(self.created),
            self.model,
            self.weights,
            some(self.labels),
            some(self.expected),
            self.scores[at],
            self.logits[at],
            {name: values[at] for name, values in self.explanations.items()},
            {name: values[at] for name, values in self.inputs.items()},
            {name: some(values) for name, values in self.groups.items()},
            {name: values[at] for name, values in self.decisions.items()},
        )


def observe(
    source: str | os.PathLike[str] | Iterable[Explanation],
    *,
    metadata: str | os.PathLike[str] | None = None,
    groups: Mapping[str, Sequence[str | None]] | None = None,
    inputs: Mapping[str, Sequence[float]] | None = None,
    expected: Sequence[str | None] | None = None,
    measure_inputs: bool = False,
) -> Observations:
    """Measure explanations once, and keep what drift tests and gaps compare.

    Args:
        source: The folder of a run, or explanations. Where an item has several (classes, methods),
            the first counts, so that items stay independent of each other.
        metadata: A table with what is known of each item (`govern.metadata`): groups, and boxes of
            regions (`govern.regions`).
        groups: Further columns of groups, a value each item in order; nothing is inferred. Those
            that rows of tables keep are there already.
        inputs: Statistics of the inputs, likewise.
        expected: The true classes, likewise; those of a folder run are read from it.
        measure_inputs: Whether to open the originals and measure them (`govern.pixels`); where one
            is gone or has changed, its statistics are missing.

    Returns:
        The items.

    Raises:
        StoreError: The folder isn't a run's, or is damaged, or the metadata don't fit it.
        ArgumentError: There are no explanations, or a column has another length.
    """
    kept: list[tuple[Explanation, str | None]] = []
    rows: list[dict[str, float]] = []
    for explanation, label in one_an_item(read_run(source)):
        rows.append(measure(explanation))
        kept.append((explanation, label))
    if not kept:
        raise ArgumentError("expected explanations, got none: explain some items first")
    for name, column in {**(groups or {}), **(inputs or {}), "expected": expected}.items():
        if column is not None and len(column) != len(kept):
            raise ArgumentError(
                f"expected {len(kept)} values in {name!r}, got {len(column)}: one an explanation"
            )
    made = [one for one, _ in kept]
    if metadata is not None:
        columns = read_metadata(metadata, [name_of(one) for one in made])
        for at, one in enumerate(made):
            rows[at] |= measure_regions(one, {name: value[at] for name, value in columns.items()})
        regions = {name for row in rows for name in row if name.startswith(PREFIX)}
        told = {name: column for name, column in columns.items() if name not in regions}
        groups = {**told, **(groups or {})}
    measured = dict(inputs or {})
    if measure_inputs:
        pictures = [measured_input(one) for one in made]
        seen_names = dict.fromkeys(name for row in pictures for name in row)
        measured |= {name: [row.get(name, np.nan) for row in pictures] for name in seen_names}
    names = list(dict.fromkeys(name for row in rows for name in row))
    known = tuple(label for _, label in kept) if expected is None else tuple(expected)
    rows_of_tables = [one for one in made if isinstance(one, TableExplanation)]
    grouped: dict[str, Sequence[Any]] = dict(groups or {})
    if len(rows_of_tables) == len(made):
        measured = {**measure_rows(rows_of_tables), **measured}
        protected = dict.fromkeys(name for one in rows_of_tables for name in one.groups)
        found = {name: [one.groups.get(name) for one in rows_of_tables] for name in protected}
        grouped = {
            **{
                name: [None if one is None else str(one) for one in column]
                for name, column in found.items()
            },
            **grouped,
        }
    return Observations(
        tuple(name_of(one) for one in made),
        tuple(one.created for one in made),
        made[0].model.name,
        made[0].model.weights_sha256,
        tuple(answer_of(one) for one in made),
        known,
        np.array([one.score for one in made], np.float64),
        np.array([one.logit for one in made], np.float64),
        {name: np.array([row.get(name, np.nan) for row in rows], np.float64) for name in names},
        {name: np.asarray(column, np.float64) for name, column in measured.items()},
        {name: tuple(column) for name, column in grouped.items()},
        decisions_of(made, known),
    )


def decisions_of(made: Sequence[Explanation], expected: Sequence[str | None]) -> dict[str, Array]:
    """Compute the figures of answers; none where nothing is decided or no outcome is known.

    Args:
        made: The explanations.
        expected: The true class of each, None where it isn't known.
    """
    found: dict[str, list[float]] = {name: [] for name in DECISIONS}
    for one, true in zip(made, expected, strict=True):
        row = one if isinstance(one, TableExplanation) else None
        decided = row is None or row.favourable is not None  # a score alone can't be wrong
        scored = row is not None and row.scale != "response"
        found["error"].append(
            float(true != answer_of(one)) if decided and true is not None else math.nan
        )
        found["favourable"].append(
            math.nan if row is None or row.favourable is None else row.favourable
        )
        found["calibration"].append(
            one.score - (true == one.label) if scored and true is not None else math.nan
        )
    columns = {name: np.array(column, np.float64) for name, column in found.items()}
    return {name: column for name, column in columns.items() if not np.isnan(column).all()}


def answer_of(explanation: Explanation) -> str:
    """Return what the model said: the decision about a table's row, the class of anything else."""
    outcome = explanation.outcome if isinstance(explanation, TableExplanation) else None
    return outcome or explanation.label


def name_of(explanation: Explanation) -> str:
    """Name what was explained: its path (and row), or the SHA-256 of its content."""
    told = explanation.input
    if isinstance(told, RowRef):
        return str(told)
    return told.path or told.source_sha256


def measured_input(explanation: Explanation) -> dict[str, float]:
    """Measure the original of an explanation's image; nothing where it has none or it is gone."""
    if isinstance(explanation, PairExplanation):
        explanation = explanation.image
    path = explanation.input.path
    if not isinstance(explanation, ImageExplanation) or (path and address.remote(path)):
        return {}  # whoever wrote the record chose the address: it isn't asked
    try:
        return measure_image(explanation.original())
    except ImageError:
        return {}


def one_an_item(found: Iterable[tuple[Explanation, T]]) -> Iterator[tuple[Explanation, T]]:
    """Yield the first explanation of each item, by the first method, with what goes with it.

    The explanations of an item follow each other and are of different classes.
    """
    method, before = None, None
    classes: set[str] = set()
    for explanation, more in found:
        method = explanation.method if method is None else method
        if explanation.method != method:
            continue
        item = explanation.input.path, explanation.input.source_sha256
        if item == before and explanation.label not in classes:
            classes.add(explanation.label)
            continue
        before, classes = item, {explanation.label}
        yield explanation, more


def read_run(
    source: str | os.PathLike[str] | Iterable[Explanation],
) -> Iterator[tuple[Explanation, str | None]]:
    """Yield explanations with the true classes that a folder's rows hold."""
    if not isinstance(source, (str, os.PathLike)):
        for explanation in source:
            yield explanation, None
        return
    for table in reading.tables(Path(source)):
        for row in table.to_pylist():
            yield of_row(row), row.get("expected")


def read_records(out: Path) -> Iterator[tuple[Explanation, tuple[dict[str, Any], str | None]]]:
    """Yield a folder's explanations, each with its fields as stored and its true class."""
    for table in reading.tables(out):
        for row in table.to_pylist():
            record = record_of(row)
            yield Explanation.from_dict(record), (record, row.get("expected"))
