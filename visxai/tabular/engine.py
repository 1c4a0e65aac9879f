"""The engine of tables: a model, what it is compared with, and rows in; records out.

engine = visxai.tabular.Engine(booster, background=approved, features=names, threshold=0.5)
engine.explain(applicants)[0].contributions       # frozen records
for block in engine.stream("applicants.parquet"): ...    # arrays, a million rows in little memory
"""

from __future__ import annotations

import datetime
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import metadata
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from visxai._version import __version__
from visxai.errors import ArgumentError
from visxai.process import collect_as_usual
from visxai.record.table import ADDITIVE, TableExplanation
from visxai.references import Cell, ModelRef, RowRef
from visxai.tabular import methods, tables
from visxai.tabular.background import Background
from visxai.tabular.features import Matrix
from visxai.tabular.methods.base import TableMethod
from visxai.tabular.models import load
from visxai.tabular.models.interface import LinearModel, TermModel, TreeModel, Vector
from visxai.tabular.tables import Batch


@dataclass(frozen=True)
class Block:
    """Explained rows as arrays.

    Attributes:
        first: The position in the table of the first row, from 0.
        table: The rows' columns: features, and protected columns where the table has them.
        values: The attributions, float64 (rows, features).
        base: What they start from, float64 (rows,).
        logits: The scalars that they add up to, float64 (rows,).
        scores: What the model reports, float64 (rows,).
        seconds: The time that explaining them took.
    """

    first: int
    table: pa.Table
    values: Matrix
    base: Vector
    logits: Vector
    scores: Vector
    seconds: float

    @property
    def additivity(self) -> Vector:
        """The absolute difference between base value plus attributions and scalar, (rows,)."""
        return np.asarray(np.abs(self.base + self.values.sum(1) - self.logits))


class Engine:
    """Explains rows of tables with one model.

    Attributes:
        model: The model behind its interface.
        background: The rows to compare with, None where trees compare with their training rows.
        method: The method.
        threshold: The score from which the decision is favourable, None without a decision.
        label: What the score is the score of.
        excluded: Columns that the model never saw.
        protected: Those of them that records keep as metadata.
    """

    def __init__(
        self,
        model: Any,
        background: Any = None,
        features: Any = None,
        *,
        method: str | TableMethod | None = None,
        threshold: float | None = None,
        label: str | None = None,
        excluded: Sequence[str] = (),
        protected: Sequence[str] = (),
        name: str | None = None,
        scale: str | None = None,
        target: int | None = None,
    ) -> None:
        """Make an engine.

        Args:
            model: A trained model (see `visxai.tabular.models.load`).
            background: The rows to compare with: a `Background`, which says how they were chosen,
                or a table. Trees do without one.
            features: The columns that the model scores: names, `Feature` objects, or names with
                their levels; by default as the model or the background names them.
            method: A method's spec; by default the exact one that fits the model: interventional
                or path-dependent values of trees, a linear model's own, a machine's terms,
                enumeration up to 8 features, and Kernel SHAP beyond.
            threshold: The score from which the decision is favourable.
            label: What the score is the score of, such as "repaid".
            excluded: Columns of the tables that the model never saw, for the record.
            protected: Protected columns: kept in records as metadata and never scored.
            name: The model's name in records.
            scale: For a callable the scale of its numbers.
            target: The class to explain, for a classifier of more than two.

        Raises:
            ArgumentError: Features, background, method or columns don't fit together.
            ModelError: The model isn't supported.
        """
        collect_as_usual()
        whole = None if background is None else Background.of(background)
        self.model = load(model, features, whole, name=name, scale=scale, target=target)
        names = self.model.features.names
        self.background = None if whole is None else whole.select(names)
        for column in (*protected, *excluded):
            if column in names:
                raise ArgumentError(
                    f"expected protected and excluded columns that the model doesn't score, got "
                    f"the feature {column!r}: train the model without it",
                    field="protected",
                )
        self.protected = tuple(protected)
        self.excluded = tuple(dict.fromkeys((*protected, *excluded)))
        self.threshold = threshold
        number = f"class {self.model.target}"
        self.label = label or ("prediction" if self.model.scale == "response" else number)
        compared = None
        if self.background is not None:
            compared = self.model.features.matrix(self.background.table)
        self.compared: Matrix | None = compared
        self.method = self._default() if method is None else methods.load(method)
        self.typical: tuple[Cell, ...] = ()
        if compared is not None and self.method.compares:
            self.typical = self._typical(compared)
        self._explain = self.method.prepare(self.model, compared)

    def __repr__(self) -> str:
        return f"<Engine {self.model.name}, {len(self.model.features)} features, {self.method}>"

    @property
    def scale(self) -> str:
        """The scale of logits and attributions."""
        return self.method.scale(self.model)

    def matrix(self, data: Any) -> Matrix:
        """Turn a table into the numbers that the model sees, float64 (rows, features).

        Raises:
            ArgumentError: The table doesn't have the features.
        """
        return self.model.features.matrix(tables.arrow(data, self.model.features.names))

    def predict(self, data: Any) -> Vector:
        """Compute the scores of a table's rows, float64 (rows,).

        Raises:
            ArgumentError: The table doesn't have the features.
        """
        return self.model.predict(self.matrix(data))

    def stream(self, data: Any, rows: int = tables.ROWS) -> Iterator[Block]:
        """Explain a table of any length, block by block; a file is never read whole.

        Args:
            data: A table in memory, or the path of a Parquet or CSV file.
            rows: The most rows of a block.

        Yields:
            The blocks, in order.

        Raises:
            ArgumentError: The table can't be read or doesn't have the features.
        """
        names = self.model.features.names
        for batch in tables.batches(data, (*names, *self.protected), rows, names):
            yield self._block(batch)

    def explain(self, data: Any) -> list[TableExplanation]:
        """Explain the rows of a table.

        Args:
            data: A table in memory, or the path of a Parquet or CSV file.

        Returns:
            A record for each row, in order.

        Raises:
            ArgumentError: The table can't be read or doesn't have the features.
        """
        path = str(data) if isinstance(data, (str,)) or hasattr(data, "__fspath__") else None
        return [one for block in self.stream(data) for one in self.records(block, path)]

    def records(self, block: Block, path: str | None = None) -> list[TableExplanation]:
        """Make the records of a block.

        Args:
            block: Explained rows.
            path: The table's path, for the records.
        """
        names = self.model.features.names
        rows = block.table.select(list(names)).to_pylist()
        kept = [name for name in self.protected if name in block.table.column_names]
        groups = block.table.select(kept).to_pylist() if kept else [{}] * len(rows)
        model = ModelRef(self.model.name, self.model.sha256, self._preprocess)
        created = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        background = self.explained_against
        missed = block.additivity
        return [
            TableExplanation(
                input=RowRef(names, tuple(map(_cell, row.values())), block.first + at, path),
                model=model,
                values=block.values[at].astype(np.float32),
                method=repr(self.method),
                target=self.label,
                class_index=None if self.model.scale == "response" else self.model.target,
                label=self.label,
                score=float(block.scores[at]),
                logit=float(block.logits[at]),
                base_value=float(block.base[at]),
                scale=self.scale,
                threshold=self.threshold,
                background=background,
                typical=self.typical,
                excluded=self.excluded,
                groups={name: _cell(value) for name, value in group.items()},
                degenerate=_degenerate(block.values[at]),
                quality={
                    "additivity": float(missed[at]),
                    "additive": bool(missed[at] <= ADDITIVE * max(1.0, abs(block.logits[at]))),
                },
                versions=_versions(),
                created=created,
                seconds=block.seconds / len(rows),
            )
            for at, (row, group) in enumerate(zip(rows, groups, strict=True))
        ]

    def interactions(self, data: Any) -> NDArray[np.float64]:
        """Compute the path-dependent interaction values of trees.

        Args:
            data: A table in memory.

        Returns:
            float64 (rows, features, features), symmetric; each row of a matrix adds up to the
            path-dependent attribution of its feature.

        Raises:
            ArgumentError: The model isn't made of trees.
        """
        if not isinstance(self.model, TreeModel):
            raise ArgumentError(
                f"expected a model of trees for interaction values, got {self.model.name}"
            )
        return self.model.interactions(self.matrix(data))

    def reproduce(self, record: TableExplanation) -> float:
        """Compute a stored record again.

        Returns:
            The greatest absolute difference of an attribution.

        Raises:
            ArgumentError: The record is of another model, method or background.
        """
        mine = (
            self.model.sha256,
            repr(self.method),
            self.explained_against,
            self.model.features.names,
        )
        theirs = (
            record.model.weights_sha256,
            record.method,
            dict(record.background),
            record.features,
        )
        for what, own, other in zip(
            ("model", "method", "background", "features"), mine, theirs, strict=True
        ):
            if own != other:
                raise ArgumentError(
                    f"expected a record of this engine's {what} ({own}), got {other}: make an "
                    f"engine with the record's {what}"
                )
        table = pa.table({n: [c] for n, c in zip(record.features, record.input.data, strict=True)})
        again = self._block(Batch(0, table)).values[0].astype(np.float32)
        return float(np.abs(again - record.values).max())

    def _block(self, batch: Batch) -> Block:
        began = time.perf_counter()
        x = self.model.features.matrix(batch.table)
        found = self._explain(x)
        scores = found.logits
        if self.model.kind == "softmax":
            scores = self.model.predict(x)
        elif self.scale == self.model.scale:
            scores = self.model.scores(found.logits)
        seconds = time.perf_counter() - began
        return Block(batch.first, batch.table, *found, scores, seconds)

    def _default(self) -> TableMethod:
        """Choose the exact method that fits the model."""
        if isinstance(self.model, TreeModel):
            return methods.load(
                "tree_shap" if self.background is None else "interventional_tree_shap"
            )
        if isinstance(self.model, LinearModel):
            return methods.load("linear_shap")
        if isinstance(self.model, TermModel):
            return methods.load("ebm_terms")
        return methods.load("exact_shap" if len(self.model.features) <= 8 else "kernel_shap")

    def _typical(self, compared: Matrix) -> tuple[Cell, ...]:
        """Find each feature's typical value: the lower median of a number or of ordered levels."""
        found = []
        for at in range(compared.shape[1]):
            known = np.sort(compared[:, at][~np.isnan(compared[:, at])])
            middle = known[(len(known) - 1) // 2] if len(known) else np.nan
            found.append(self.model.features.cell(at, float(middle)))
        return tuple(found)

    @property
    def explained_against(self) -> dict[str, Any]:
        """What records keep of the rows compared with: rule, number and hash."""
        if self.background is not None and self.method.compares:
            return self.background.to_dict()
        return {"rule": self.method.implied, "rows": 0, "sha256": None}

    @property
    def _preprocess(self) -> str:
        coded = [one.name for one in self.model.features.items if one.levels]
        return (
            f"positions among the levels of {', '.join(coded)}" if coded else "numbers as they are"
        )


def _cell(value: Any) -> Cell:
    """Turn a table's value into a plain one; NaN means missing."""
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if np.isfinite(value) else None
    return str(value)


def _degenerate(values: Vector) -> bool:
    return not np.isfinite(values).all() or not values.any()


@cache
def _versions() -> dict[str, str]:
    """Return the versions of what computes attributions, of the libraries that are installed."""
    found = {"visxai": __version__, "numpy": np.__version__}
    for name in ("xgboost", "xgboost-cpu", "lightgbm", "scikit-learn", "shap"):
        try:
            found[name.removesuffix("-cpu")] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
