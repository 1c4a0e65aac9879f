"""Tables of images and their labels: CSV with a header, or Parquet.

Columns are found by name in any case; cells are text, "" where a cell is empty.
"""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from visxai.errors import Argument, ArgumentError, UnknownName
from visxai.foreign import shown
from visxai.images.parquet import ParquetTable

ENDINGS = (".csv", ".parquet")
PATHS = (
    *("path", "filepath", "file_path", "file", "filename", "file_name"),
    *("image", "image_path", "img", "img_path", "url", "uri"),
)

LABELS = (
    *("label", "class", "target", "category", "truth", "expected"),
    *("label_name", "class_name", "class_index", "class_id", "cls"),
)

TEXTS = ("text", "comment", "comment_text", "review", "sentence", "content", "body", "message")

IDS = ("id", "image_id", "uuid")


@dataclass(frozen=True)
class Table:
    """A table whose columns are read on demand.

    Attributes:
        name: The table's name, for messages.
        columns: The names of the columns.
        cells: Takes a column's number and returns its cells as text.
    """

    name: str
    columns: tuple[str, ...]
    cells: Callable[[int], list[str]]

    def column(self, name: str) -> list[str]:
        """Return the cells of an existing column."""
        return self.cells(self.columns.index(name))

    def find(self, names: Sequence[str]) -> str | None:
        """Return the column of the first of these names that exists in the table, or None."""
        known = {column.strip().casefold(): column for column in reversed(self.columns)}
        return next((known[name] for name in names if name in known), None)

    def paths(self, column: str | None = None) -> list[str]:
        """Return the column of the images' paths.

        Args:
            column: Its name; None finds it by the names in PATHS.

        Raises:
            UnknownName: There is no column of this name.
            ArgumentError: No column has one of the names in PATHS.
        """
        found = self._asked(column) or self.find(PATHS)
        if found is None:
            words = self.find(TEXTS)
            read = (
                *(", or explain its texts with ", Argument("text_column", words), " and "),
                *(Argument("model", "toxicity"), " or hf:FOLDER"),
            )
            raise ArgumentError(
                expected=f"a column of paths in {self.name} ({', '.join(PATHS[:6])} or image)",
                got=", ".join(map(shown, self.columns))[:120] or "none",
                remedy=(
                    *("name it with ", Argument("path_column")),
                    *(read if words is not None else ()),
                ),
                field="path_column",
            )
        return self.column(found)

    def texts(self, column: str | None = None) -> list[str]:
        """Return the column of texts.

        Args:
            column: Its name; None finds it by the names in TEXTS.

        Raises:
            UnknownName: There is no column of this name.
            ArgumentError: No column has one of the names in TEXTS.
        """
        found = self._asked(column) or self.find(TEXTS)
        if found is None:
            raise ArgumentError(
                expected=f"a column of texts in {self.name} ({', '.join(TEXTS[:4])} or the like)",
                got=", ".join(map(shown, self.columns))[:120],
                remedy=("name it with ", Argument("text_column")),
                field="text_column",
            )
        return self.column(found)

    def labels(self, column: str | None = None) -> list[str] | None:
        """Return the column of the images' labels, None where the table has none.

        Args:
            column: Its name; None finds it by the names in LABELS.

        Raises:
            UnknownName: There is no column of this name.
        """
        found = self._asked(column) or self.find(LABELS)
        return None if found is None else self.column(found)

    def ids(self) -> list[str] | None:
        """Return the caller's own identifiers of the images.

        Returns:
            The cells of the first column of IDS, None without such a column of text or numbers.
        """
        found = self.find(IDS)
        try:
            return None if found is None else self.column(found)
        except ArgumentError:  # another kind of column, which happens to have this name
            return None

    def _asked(self, column: str | None) -> str | None:
        if column is not None and column not in self.columns:
            raise UnknownName(f"column of {self.name}", column, self.columns)
        return column


def read(name: str | os.PathLike[str], data: bytes) -> Table:
    """Read a table from a file's bytes, CSV or Parquet; raise ArgumentError where it isn't one."""
    told = shown(name)
    if data[:4] == b"PAR1":
        table = ParquetTable(told, data)
        return Table(told, table.columns, table.cells)
    # Bytes of a path that aren't UTF-8 are kept.
    return of_csv(told, data.decode("utf-8-sig", "surrogateescape"))


def of_csv(name: str, text: str) -> Table:
    """Read a table from the text of a CSV file; short rows are filled with empty cells."""
    reader = csv.reader(io.StringIO(text, newline=""))
    try:
        rows = [row for row in reader if row]
    except csv.Error as error:
        raise ArgumentError(
            f"expected a table in {name}, got something else at line {reader.line_num} ({error}): "
            "write CSV with a header, or Parquet"
        ) from None
    if not rows:
        raise ArgumentError(f"expected a table with a header in {name}, got an empty file")
    header, *rows = rows
    return Table(
        name,
        tuple(header),
        lambda index: [row[index].strip() if index < len(row) else "" for row in rows],
    )
