"""What would have changed a decision: the fewest, and then smallest, changes that reach the limit.

    what_would_change(engine, record, {"duration": "lower", "savings": "raise"})

Only features that are named may change, each in the direction given. A feature's new value is one
that a row of the background has, or a level, so that nothing impossible is proposed. The size of a
change is the share of the background between the two values (of a category: the share of its levels
that it skips), and sizes add up. All single changes and all pairs are tried, and triples of the
eight features that help most alone. What is found has been scored by the model itself.

Source: Wachter, Mittelstadt and Russell, Counterfactual explanations without opening the black box,
2018.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError
from visxai.record.table import TableExplanation
from visxai.references import Cell
from visxai.tabular.engine import Engine
from visxai.tabular.models.interface import Vector

Direction = Literal["raise", "lower", "any"]
Actions = Mapping[str, Direction]

_MOST = 3  # features that change together
_VALUES = 12  # new values of a feature that are tried
_TRIPLES = 8  # features whose triples are tried


class Change(NamedTuple):
    """One feature's change.

    Attributes:
        feature: The feature's name.
        own: The row's value.
        needed: The value in its place.
    """

    feature: str
    own: Cell
    needed: Cell


@dataclass(frozen=True)
class Counterfactual:
    """Changes that, together and with all else the same, reach the threshold.

    Attributes:
        changes: The changes, at most three.
        score: The model's score of the changed row.
    """

    changes: tuple[Change, ...]
    score: float


class _Candidate(NamedTuple):
    at: int  # the feature's position
    value: float
    size: float


def what_would_change(
    engine: Engine, record: TableExplanation, actions: Actions
) -> Counterfactual | None:
    """Find the smallest change of allowed features that makes a decision favourable.

    Args:
        engine: The engine that made the record, with a background and a threshold.
        record: A record of an unfavourable score.
        actions: The features that may change, each with "raise", "lower" or "any"; the levels of a
            category count as ordered.

    Returns:
        The changes, None where up to three don't suffice.

    Raises:
        ArgumentError: An action names a feature that isn't scored or another direction, or the
            score is favourable or can't be.
    """
    compared = engine.compared
    if record.favourable is not False or compared is None or record.threshold is None:
        raise ArgumentError(
            f"expected a score below its threshold, compared with a background, got "
            f"{record.score:.3f} with the threshold {record.threshold}: give the engine both"
        )
    for name, direction in actions.items():
        if name not in record.features or direction not in ("raise", "lower", "any"):
            raise ArgumentError(
                f"expected scored features with raise, lower or any, got {name!r}: {direction!r}; "
                f"the features are {', '.join(record.features)}",
                field="actions",
            )
    row = engine.model.features.numbers(record.input.data)
    found = [
        one
        for name, direction in actions.items()
        for one in _values(engine, record.features.index(name), row, compared, direction)
    ]
    if not found:
        return None
    alone = _scores(engine, row, [(one,) for one in found])
    for count in range(1, _MOST + 1):
        chosen = _together(found, alone, count)
        scores = alone if count == 1 else _scores(engine, row, chosen)
        # A score at the threshold up to the last digit isn't worth a promise.
        passing = np.flatnonzero(scores > record.threshold)
        if len(passing):
            best = min(passing, key=lambda i: (sum(c.size for c in chosen[i]), -scores[i]))
            return Counterfactual(
                tuple(
                    Change(
                        record.features[one.at],
                        record.input.data[one.at],
                        engine.model.features.cell(one.at, one.value),
                    )
                    for one in chosen[best]
                ),
                float(scores[best]),
            )
    return None


def _values(
    engine: Engine, at: int, row: Vector, compared: NDArray[np.float64], direction: Direction
) -> list[_Candidate]:
    """List a feature's new values in the direction allowed, at most twelve, and their sizes."""
    own, levels = row[at], engine.model.features.items[at].levels
    if levels:
        values = np.arange(len(levels), dtype=np.float64)
        sizes = np.abs(values - (-1 if np.isnan(own) else own)) / len(levels)
    else:
        column = np.sort(compared[:, at][np.isfinite(compared[:, at])])
        values = np.unique(column)
        if len(values) > _VALUES:
            values = np.unique(np.quantile(values, np.linspace(0, 1, _VALUES), method="nearest"))
        places = np.searchsorted(column, values)
        sizes = np.abs(places - np.searchsorted(column, own)) / max(1, len(column))
    allowed = {"raise": values > own, "lower": values < own, "any": values != own}[direction]
    return [
        _Candidate(at, float(value), float(size))
        for value, size in zip(values[allowed], sizes[allowed], strict=True)
    ]


def _together(found: list[_Candidate], alone: Vector, count: int) -> list[tuple[_Candidate, ...]]:
    """List the changes of so many different features."""
    kept = found
    if count > 2:
        best: dict[int, float] = {}
        for one, score in zip(found, alone, strict=True):
            best[one.at] = max(best.get(one.at, -np.inf), float(score))
        leading = sorted(best, key=lambda at: -best[at])[:_TRIPLES]
        kept = [one for one in found if one.at in leading]
    return [some for some in combinations(kept, count) if len({one.at for one in some}) == count]


def _scores(engine: Engine, row: Vector, changes: list[tuple[_Candidate, ...]]) -> Vector:
    """Score the row with each of some changes."""
    if not changes:
        return np.empty(0)
    made = np.tile(row, (len(changes), 1))
    for at, some in enumerate(changes):
        for one in some:
            made[at, one.at] = one.value
    return engine.model.predict(made)
