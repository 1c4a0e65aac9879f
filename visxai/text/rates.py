"""Error rates with intervals, their comparison, and agreement of two rankings.

Source: Fisher, Statistical methods for research workers, 1925; Wilson, Probable inference, 1927;
Kendall, The treatment of ties in ranking problems, 1945; Holm, A simple sequentially rejective
multiple test procedure, 1979.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb, sqrt
from typing import Any

import numpy as np

_Z = 1.959964  # of a 95 % interval


@dataclass(frozen=True)
class Rate:
    """Errors among texts, with Wilson's 95 % interval.

    Attributes:
        errors: The texts that the model gets wrong.
        texts: All texts.
    """

    errors: int
    texts: int

    @classmethod
    def of(cls, wrong: Any) -> Rate:
        """Count the errors of texts (n,) bool."""
        return cls(int(wrong.sum()), len(wrong))

    @property
    def value(self) -> float:
        """The share of errors, 0 without texts."""
        return self.errors / self.texts if self.texts else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval of the share, 0 to 1."""
        if not self.texts:
            return 0.0, 1.0
        n, p = self.texts, self.value
        middle = (p + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
        half = _Z / (1 + _Z**2 / n) * sqrt(p * (1 - p) / n + _Z**2 / (4 * n**2))
        return max(0.0, middle - half), min(1.0, middle + half)

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.errors} of {self.texts} wrong ({low:.0%} to {high:.0%})"


def fisher(mine: int, texts: int, errors: int, total: int) -> float:
    """Compute the chance of at least `mine` errors among `texts` of `total` with `errors`."""
    most = min(texts, errors)
    ways = sum(comb(errors, k) * comb(total - errors, texts - k) for k in range(mine, most + 1))
    return ways / comb(total, texts)


def holm(chances: Sequence[float]) -> list[float]:
    """Correct p-values for their number by Holm's method; the order stays."""
    corrected, highest = [1.0] * len(chances), 0.0
    for rank, place in enumerate(sorted(range(len(chances)), key=chances.__getitem__)):
        highest = max(highest, min(1.0, chances[place] * (len(chances) - rank)))
        corrected[place] = highest
    return corrected


def tau(first: Any, second: Any) -> float:
    """Compute Kendall's tau-b of two arrays of values (n,), -1 to 1; NaN where one is constant."""
    both = left = right = 0.0
    for here, there in zip(first, second, strict=True):  # a row at a time: texts can be long
        one, other = np.sign(here - first), np.sign(there - second)
        both += float(one @ other)
        left += float(one @ one)
        right += float(other @ other)
    return both / sqrt(left * right) if left and right else float("nan")
