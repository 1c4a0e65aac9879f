"""The features of a table: their names, their categories, and the numbers that models see.

    Features.of(["duration", Feature("savings", ("none", "under 100 DM", "over 100 DM"))])

A category becomes its position among the levels, so each feature stays one column and its
attribution one number. The levels' order is the order that a tree splits them in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from visxai.errors import ArgumentError
from visxai.references import Cell

Matrix = NDArray[np.float64]  # (rows, features); NaN where a value is missing


@dataclass(frozen=True)
class Feature:
    """A column that a model scores.

    Attributes:
        name: The column's name.
        levels: The categories in order, empty for a number.
    """

    name: str
    levels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Features:
    """The columns that a model scores, in the model's order."""

    items: tuple[Feature, ...]

    def __post_init__(self) -> None:
        """Raise ArgumentError where two features share a name, or two levels of one do."""
        for what, names in (
            ("feature", self.names),
            *((f"level of {one.name}", one.levels) for one in self.items),
        ):
            if len(set(names)) != len(names):
                twice = next(name for name in names if list(names).count(name) > 1)
                raise ArgumentError(f"expected each {what} once, got {twice!r} again")

    @classmethod
    def of(cls, given: Any) -> Features:
        """Make the features of names, of `Feature` objects, or of names with their levels.

        Args:
            given: `Features`; a sequence of names and `Feature` objects; or a mapping of names to
                levels, where None or an empty sequence means a number.

        Raises:
            ArgumentError: It is none of these, or a name appears twice.
        """
        if isinstance(given, Features):
            return given
        if isinstance(given, Mapping):
            return cls(tuple(Feature(str(n), tuple(levels or ())) for n, levels in given.items()))
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise ArgumentError(
                f"expected names of features, got {given!r}: pass a list such as ['age', 'income']",
                field="features",
            )
        return cls(tuple(x if isinstance(x, Feature) else Feature(str(x)) for x in given))

    @classmethod
    def found_in(cls, table: pa.Table, names: Sequence[str] | None = None) -> Features:
        """Take a table's columns as features: text has its sorted values as levels.

        Args:
            table: The table.
            names: The columns to take, all by default.
        """
        kept = table.select(list(names)) if names is not None else table
        found = []
        for name, column in zip(kept.column_names, kept.columns, strict=True):
            plain = _plain(column)
            levels = sorted(pc.unique(plain.drop_null()).to_pylist()) if _is_text(plain) else ()
            found.append(Feature(name, tuple(levels)))
        return cls(tuple(found))

    @property
    def names(self) -> tuple[str, ...]:
        """The names, in order."""
        return tuple(one.name for one in self.items)

    def __len__(self) -> int:
        return len(self.items)

    def matrix(self, table: pa.Table) -> Matrix:
        """Turn a table into numbers.

        Args:
            table: A table with all features among its columns.

        Returns:
            float64 (rows, features): numbers as they are, categories as positions among their
            levels, NaN where a value is missing.

        Raises:
            ArgumentError: A column is missing, holds text where numbers are expected, or a category
                that isn't among the levels.
        """
        made = np.empty((table.num_rows, len(self)), np.float64)
        for at, feature in enumerate(self.items):
            if feature.name not in table.column_names:
                raise ArgumentError(
                    f"expected a table with the columns {', '.join(self.names)}, got one without "
                    f"{feature.name!r}: add it",
                    field="data",
                )
            made[:, at] = _numbers(_plain(table.column(feature.name)), feature)
        return made

    def numbers(self, cells: Sequence[Cell]) -> NDArray[np.float64]:
        """Turn a record's values, in order, into numbers, float64 (features,); see `matrix`.

        Raises:
            ArgumentError: A value isn't among the levels, or is text where a number is expected.
        """
        made = np.full(len(self), np.nan)
        for at, (feature, cell) in enumerate(zip(self.items, cells, strict=True)):
            if cell is None:
                continue
            if not feature.levels and not isinstance(cell, str):
                made[at] = float(cell)
            elif str(cell) in feature.levels:
                made[at] = feature.levels.index(str(cell))
            else:
                raise ArgumentError(
                    f"expected {feature.name} as the model knows it, got {cell!r}: use the engine "
                    "that made the record"
                )
        return made

    def cells(self, row: NDArray[np.float64]) -> tuple[Cell, ...]:
        """Turn a row of numbers back into a table's values; whole numbers become integers."""
        return tuple(self.cell(at, value) for at, value in enumerate(row))

    def cell(self, at: int, value: float) -> Cell:
        """Turn the number of the feature at a position back into its value."""
        if not np.isfinite(value):
            return None
        if self.items[at].levels:
            return self.items[at].levels[int(value)]
        return int(value) if float(value).is_integer() else float(value)

    def frame(self, matrix: Matrix) -> Any:
        """Turn numbers back into a pandas DataFrame, categories as their names."""
        import pandas as pd

        columns: dict[str, Any] = {}
        for at, one in enumerate(self.items):
            column = matrix[:, at]
            if not one.levels:
                columns[one.name] = column
                continue
            levels = np.array([*one.levels, None], dtype=object)
            positions = np.where(np.isnan(column), len(one.levels), column).astype(int)
            columns[one.name] = levels[positions]
        return pd.DataFrame(columns)


def _plain(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Return a column without a dictionary, as categories of pandas and polars have one."""
    if pa.types.is_dictionary(column.type):
        return column.cast(column.type.value_type)
    return column


def _is_text(column: pa.ChunkedArray) -> bool:
    kind = column.type
    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _numbers(column: pa.ChunkedArray, feature: Feature) -> NDArray[np.float64]:
    """Convert a feature's column; raise ArgumentError for what its feature doesn't know."""
    if feature.levels:
        known = pa.array(feature.levels, pa.string())
        text = column.cast(pa.string())
        places = pc.index_in(text, value_set=known)
        lost = pc.and_(pc.is_valid(text), pc.is_null(places))
        if pc.any(lost).as_py():
            got = text.filter(lost)[0].as_py()
            raise ArgumentError(
                f"expected {feature.name} as one of {', '.join(map(repr, feature.levels))}, got "
                f"{got!r}: correct the table, or name the level in features",
                field="data",
            )
        return np.asarray(pc.fill_null(places.cast(pa.float64()), np.nan).to_numpy(), np.float64)
    try:
        if pa.types.is_boolean(column.type):
            column = column.cast(pa.int8())
        numbers = column.cast(pa.float64()) if column.null_count else column
        return np.asarray(numbers.to_numpy(), np.float64)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, ValueError, TypeError):
        raise ArgumentError(
            f"expected numbers in the column {feature.name!r}, got {column.type}: pass its levels "
            f"in features, as in {{{feature.name!r}: ['low', 'high']}}",
            field="data",
        ) from None
