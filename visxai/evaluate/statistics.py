"""Means over images, their intervals, and ranks of methods: the paired bootstrap.

Images are drawn anew with replacement, the same ones for every method, `draws` times:

    mean*_m = mean over the drawn images of  v_im,    interval = its 2.5 and 97.5 percentiles

Because the draws are shared, what makes an image hard for all methods cancels out of differences
and of ranks. Images where a figure isn't defined (NaN) are left out of that method's mean.

Source: Efron and Tibshirani, An introduction to the bootstrap, 1993.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

LEVEL = 0.95
_BLOCK = 2**22  # draws x images held at once


@dataclass(frozen=True)
class Interval:
    """A figure and its bootstrap interval; NaN where it isn't defined.

    Attributes:
        value: The figure.
        low: The lower end of the interval.
        high: The upper end of the interval.
    """

    value: float
    low: float
    high: float

    def to_dict(self) -> dict[str, float | None]:
        """Convert the interval for JSON, with None for NaN."""
        return {name: plain(value) for name, value in vars(self).items()}


def resampled(values: Array, draws: int, seed: int) -> Array:
    """Compute the means over images drawn with replacement.

    Args:
        values: Figures (images, methods).
        draws: The number of draws.
        seed: The seed of the draws.

    Returns:
        Means (draws, methods).
    """
    count = len(values)
    there = ~np.isnan(values)
    filled, generator = np.where(there, values, 0.0), np.random.default_rng(seed)
    found, size = [], max(1, _BLOCK // max(1, count))
    for start in range(0, draws, size):
        chosen = generator.integers(count, size=(min(size, draws - start), count))
        # How often each image was drawn: products with this matrix are sums over the draws.
        times = np.zeros((len(chosen), count))
        np.add.at(times, (np.arange(len(chosen))[:, None], chosen), 1.0)
        with np.errstate(invalid="ignore"):
            found.append((times @ filled) / (times @ there))
    return np.concatenate(found)


def intervals(values: Array, draws: int = 10_000, seed: int = 0) -> list[Interval]:
    """Compute the mean and interval of each method, from values (images, methods)."""
    return _intervals(means(values), resampled(values, draws, seed))


def differences(values: Array, from_: int, draws: int = 10_000, seed: int = 0) -> list[Interval]:
    """Compute the mean and interval of each method's difference from method `from_`.

    Only images for which both methods have a figure count.

    Args:
        values: Figures (images, methods).
        from_: The column of the method to subtract.
        draws: The number of bootstrap draws.
        seed: The seed of the draws.
    """
    rest = values - values[:, [from_]]
    return _intervals(means(rest), resampled(rest, draws, seed))


def ranks(
    values: Array, better: Literal["higher", "lower"], draws: int = 10_000, seed: int = 0
) -> list[Interval]:
    """Rank the methods, 1 the best, with intervals; equal means share their mean rank.

    Methods without a figure have the rank NaN.

    Args:
        values: Figures (images, methods).
        better: Whether a higher or a lower figure is better.
        draws: The number of bootstrap draws.
        seed: The seed of the draws.
    """
    found = means(values)
    with_one = ~np.isnan(found)
    rank = np.full(len(found), np.nan)
    drawn = np.full((draws, len(found)), np.nan)
    rank[with_one] = _ranked(found[None, with_one], better)[0]
    drawn[:, with_one] = _ranked(resampled(values[:, with_one], draws, seed), better)
    return _intervals(rank, drawn)


def means(values: Array) -> Array:
    """Compute the mean (methods,) over the images that have a figure; NaN without any."""
    there = ~np.isnan(values)
    count = there.sum(0)
    total = np.where(there, values, 0.0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _ranked(rows: Array, better: str) -> Array:
    # Rounded, so that equal methods stay equal whatever the order of their sums.
    rows = rows.round(10)
    ordered = -rows if better == "higher" else rows
    above = (ordered[:, None, :] < ordered[:, :, None]).sum(2)
    equal = (ordered[:, None, :] == ordered[:, :, None]).sum(2)
    ranks: Array = np.where(np.isnan(rows), np.nan, above + (equal + 1) / 2)
    return ranks


def _intervals(values: Array, drawn: Array) -> list[Interval]:
    tail = (1 - LEVEL) / 2
    found = []
    for value, column in zip(values, drawn.T, strict=True):
        # A draw may contain no image with a defined figure.
        sure = column[~np.isnan(column)]
        low, high = np.quantile(sure, (tail, 1 - tail)) if len(sure) else (np.nan, np.nan)
        found.append(Interval(float(value), float(low), float(high)))
    return found


def plain(value: Any) -> float | None:
    """Convert a figure for JSON, which has no NaN: None if it isn't finite."""
    return float(value) if np.isfinite(value) else None
