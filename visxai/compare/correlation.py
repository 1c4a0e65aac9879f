"""Spearman's rank correlation of two lists of numbers.

    Spearman = Pearson's correlation of the ranks; equal values share their mean rank

Source: Spearman, The proof and measurement of association between two things, 1904.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray


def rank_correlation(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Compute Spearman's rank correlation of x (n,) and y (n,); NaN where one is constant."""
    if len(x) < 2:
        return math.nan
    a, b = _ranks(x), _ranks(y)
    a, b = a - a.mean(), b - b.mean()
    scale = math.sqrt(float(a @ a) * float(b @ b))
    return min(1.0, max(-1.0, float(a @ b) / scale)) if scale > 0 else math.nan


def _ranks(values: NDArray[Any]) -> NDArray[np.float64]:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: NDArray[np.float64] = (np.cumsum(counts) - (counts - 1) / 2)[inverse]
    return ranks
