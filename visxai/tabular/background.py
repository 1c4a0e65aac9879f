"""Backgrounds: the rows that a row is compared with, and the rule that chose them.

An attribution answers "compared with whom?". Against all applicants a feature may count for an
applicant that counts against him among those who were just approved, so the background decides the
reasons. It is therefore named in every record: the rule in words, the number of rows, their hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visxai.errors import ArgumentError
from visxai.tabular.tables import arrow


@dataclass(frozen=True, eq=False)
class Background:
    """Rows to compare with.

    Attributes:
        table: The rows.
        rule: How they were chosen, in words.
    """

    table: pa.Table
    rule: str = "given by the caller"

    def __post_init__(self) -> None:
        """Raise ArgumentError for a background without rows."""
        if self.table.num_rows < 1:
            raise ArgumentError(
                f"expected at least one row to compare with ({self.rule}), got none: choose another"
                " rule or threshold",
                field="background",
            )

    @classmethod
    def of(cls, data: Any, rule: str = "given by the caller") -> Background:
        """Take all rows of a table, as `visxai.tabular.tables.arrow` reads it."""
        return data if isinstance(data, Background) else cls(arrow(data), rule)

    @classmethod
    def sample(cls, data: Any, most: int = 200, seed: int = 0) -> Background:
        """Draw at most `most` rows of a table, without replacement."""
        table = arrow(data)
        draw = np.random.default_rng(seed).permutation(table.num_rows)[:most]
        return cls(
            table.take(pa.array(np.sort(draw))),
            f"{len(draw)} of {table.num_rows} rows, drawn with seed {seed}",
        )

    @classmethod
    def approved_near(
        cls, data: Any, scores: NDArray[np.float64], threshold: float, most: int = 200
    ) -> Background:
        """Take the favourable rows with the lowest scores: those who were just approved.

        Args:
            data: The table to choose from.
            scores: The model's score for each of its rows.
            threshold: The score from which the decision is favourable.
            most: The most rows.
        """
        table = arrow(data)
        order = np.argsort(scores, kind="stable")
        chosen = order[np.asarray(scores)[order] >= threshold][:most]
        return cls(
            table.take(pa.array(np.sort(chosen))),
            f"the {len(chosen)} rows with the lowest scores of at least {threshold:g}",
        )

    def select(self, names: Sequence[str]) -> Background:
        """Keep those of some columns that are there."""
        kept = [name for name in names if name in self.table.column_names]
        return Background(self.table.select(kept), self.rule)

    @cached_property
    def sha256(self) -> str:
        """The SHA-256 (hex) of the rows' names and values as JSON."""
        return self.digest(self.table)

    @staticmethod
    def digest(table: pa.Table) -> str:
        """Compute the SHA-256 (hex) of a table's names and values as JSON."""
        plain = {name: table.column(name).to_pylist() for name in sorted(table.column_names)}
        text = json.dumps(plain, ensure_ascii=False, separators=(",", ":"), default=str)
        return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()

    def to_dict(self) -> dict[str, Any]:
        """Return what a record keeps of the background."""
        return {"rule": self.rule, "rows": self.table.num_rows, "sha256": self.sha256}
