"""How far attributions of a table's rows can be trusted: additivity, prediction gaps, stability.

    judge(engine, applicants).important            how far the score moves without what counted most
    stability([engine_of(seed) for seed in range(5)], applicants).same

Prediction gap: the `top` features of a row with the greatest |attribution| are replaced by those of
a drawn background row, and the mean absolute change of the scalar is taken; likewise for the
features with the smallest, and for drawn ones. Good attributions move the score most with the
important ones and least with the unimportant ones; where the random gap lies above the important
one, the attributions don't say what the model uses.

Stability: models trained again, by another seed or on other rows, explain the same rows. Equally
good models may decide for different reasons; reasons that another seed would turn round shouldn't
be given as the reasons.

Cost: judge: 3 x draws x rows through the model. stability: the rows' explanations by each engine.
Source: Petsiuk et al., RISE, 2018, and Agarwal et al., OpenXAI, 2022, for the gaps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from visxai.errors import ArgumentError
from visxai.tabular import tables
from visxai.tabular.engine import Engine
from visxai.tabular.features import Matrix

_DRAWS = 999


class Figure(NamedTuple):
    """A mean over rows with its 95 % bootstrap interval.

    Attributes:
        value: The mean.
        low: The lower end.
        high: The upper end.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Quality:
    """Figures of an engine's attributions.

    Attributes:
        rows: The rows that were explained.
        additivity: The largest |base value + attributions - scalar| of a row.
        important: The prediction gap of the most important features, in the model's scale.
        random: That of as many drawn features.
        unimportant: That of the least important features.
    """

    rows: int
    additivity: float
    important: Figure
    random: Figure
    unimportant: Figure


@dataclass(frozen=True)
class Stability:
    """How alike models explain the same rows, as means over all pairs of models.

    Attributes:
        models: The number of models.
        correlation: Pearson's correlation of the attributions of a row, the mean over rows; rows
            whose attributions are all equal are left out.
        same: The share of a row's `top` features that both models have among theirs, 0 to 1.
        signs: The share of attributions, weighted by size, that have the same sign, 0 to 1.
        scores: The mean absolute difference of the scores.
    """

    models: int
    correlation: Figure
    same: Figure
    signs: Figure
    scores: Figure


def judge(engine: Engine, data: Any, top: int = 4, draws: int = 20, seed: int = 0) -> Quality:
    """Judge the attributions of a table's rows.

    Args:
        engine: An engine with a background.
        data: The rows.
        top: How many features are replaced.
        draws: The background rows that replace them, drawn for each row.
        seed: The seed of all draws.

    Raises:
        ArgumentError: The engine has no background, the table no rows, or `top` isn't below the
            number of features.
    """
    compared = engine.compared
    count = len(engine.model.features)
    if compared is None or not 0 < top < count:
        raise ArgumentError(
            f"expected an engine with a background and top from 1 to {count - 1}, got "
            f"{'a background' if compared is not None else 'none'} and {top}: give it both"
        )
    table = tables.arrow(data, engine.model.features.names)
    x = engine.matrix(table)
    if not len(x):
        raise ArgumentError("expected rows to judge, got none: give some")
    blocks = list(engine.stream(table))
    values = np.concatenate([one.values for one in blocks])
    rng = np.random.default_rng(seed)
    order = np.argsort(-np.abs(values), axis=1, kind="stable")
    whole = engine.model.logits(x)
    gaps = [
        _gap(engine, x, whole, chosen, compared, draws, rng)
        for chosen in (
            order[:, :top],
            rng.random(values.shape).argsort(1)[:, :top],
            order[:, -top:],
        )
    ]
    return Quality(
        len(x),
        float(max(one.additivity.max() for one in blocks)),
        *(_figure(one, rng) for one in gaps),
    )


def stability(engines: Sequence[Engine], data: Any, top: int = 4, seed: int = 0) -> Stability:
    """Compare how models that were trained again explain the same rows.

    Args:
        engines: Two engines or more over the same features, each with its own background.
        data: The rows.
        top: The features of a row that are compared as the most important.
        seed: The seed of the bootstrap.

    Raises:
        ArgumentError: There are fewer than two engines, or they have different features.
    """
    if len(engines) < 2 or len({one.model.features.names for one in engines}) > 1:
        raise ArgumentError(
            f"expected two engines or more over the same features, got {len(engines)}: train the "
            "model again with another seed"
        )
    table = tables.arrow(data, engines[0].model.features.names)
    blocks = [list(one.stream(table)) for one in engines]
    values = [np.concatenate([block.values for block in one]) for one in blocks]
    scores = [np.concatenate([block.scores for block in one]) for one in blocks]
    pairs = list(combinations(range(len(engines)), 2))
    found = {
        "correlation": [_correlation(values[a], values[b]) for a, b in pairs],
        "same": [_same(values[a], values[b], top) for a, b in pairs],
        "signs": [_signs(values[a], values[b]) for a, b in pairs],
        "scores": [np.abs(scores[a] - scores[b]) for a, b in pairs],
    }
    rng = np.random.default_rng(seed)
    return Stability(
        len(engines),
        **{name: _figure(np.mean(one, axis=0), rng) for name, one in found.items()},
    )


def _gap(
    engine: Engine,
    x: Matrix,
    whole: NDArray[np.float64],
    chosen: NDArray[np.intp],
    compared: Matrix,
    draws: int,
    rng: np.random.Generator,
) -> NDArray[np.float64]:
    """Compute each row's mean change of the scalar without chosen features (rows,)."""
    mask = np.zeros(x.shape, bool)
    np.put_along_axis(mask, chosen, True, 1)
    moved = np.zeros(len(x))
    for _ in range(draws):
        other = compared[rng.integers(len(compared), size=len(x))]
        moved += np.abs(engine.model.logits(np.where(mask, other, x)) - whole)
    return moved / draws


def _correlation(a: Matrix, b: Matrix) -> NDArray[np.float64]:
    a, b = a - a.mean(1, keepdims=True), b - b.mean(1, keepdims=True)
    with np.errstate(invalid="ignore", divide="ignore"):
        found = (a * b).sum(1) / np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.asarray(found)


def _same(a: Matrix, b: Matrix, top: int) -> NDArray[np.float64]:
    first, second = (np.argsort(-np.abs(one), axis=1, kind="stable")[:, :top] for one in (a, b))
    shared = (first[:, :, None] == second[:, None, :]).sum((1, 2))
    return np.asarray(shared / first.shape[1])


def _signs(a: Matrix, b: Matrix) -> NDArray[np.float64]:
    sizes = np.abs(a) + np.abs(b)
    agreed = (sizes * (np.sign(a) == np.sign(b))).sum(1)
    return np.asarray(agreed / np.where(sizes.sum(1) > 0, sizes.sum(1), 1.0))


def _figure(values: NDArray[np.float64], rng: np.random.Generator) -> Figure:
    """Compute a mean over rows and its interval; NaN rows are left out."""
    known = values[~np.isnan(values)]
    if not len(known):
        return Figure(np.nan, np.nan, np.nan)
    size = max(1, 2**22 // len(known))
    means: list[float] = []
    for start in range(0, _DRAWS, size):
        drawn = rng.integers(0, len(known), (min(size, _DRAWS - start), len(known)))
        means += known[drawn].mean(1).tolist()
    low, high = np.quantile(means, (0.025, 0.975))
    return Figure(float(known.mean()), float(low), float(high))
