"""LIME: a weighted linear model of the score over texts with some of their words hidden.

    min_w  sum_z  k(z) ( f(z) - w0 - w'z )^2  +  ridge |w|^2,
    k(z) = sqrt( exp( -(100 d)^2 / width^2 ) ),   d = 1 - sqrt( |z| / n )   (cosine distance)

z says which of n words are shown. The number of hidden words is drawn uniformly from 1 to n, then
which; the first sample is the text itself. The fit explains the score before softmax or sigmoid,
where words add up, and not the probability.

    visxai.text.Engine().explain("You are an idiot", method="lime(samples=200)")

Two runs of LIME may rank words differently. So the samples are fitted in two halves as well, and
the record's `stability` is the rank correlation of the two: near 1 the order can be relied on,
below some 0.7 take more samples.

Cost: one forward of the text and one for each further sample; equal samples are run once.
Source: Ribeiro, Singh & Guestrin, Why should I trust you?, KDD 2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visxai.text.methods.base import Hiding, Maps, seeded
from visxai.text.model import Keep, Scalar, TextModel, Window


@dataclass(frozen=True, repr=False)
class Lime(Hiding):
    """The slopes of a local linear model; see the module's docstring.

    Attributes:
        samples: Number of samples, the text itself included.
        width: Width of the kernel; distances go from 0 to 100.
        ridge: Strength of the ridge.
        seed: Seed of the samples.
    """

    samples: int = 500
    width: float = 25.0
    ridge: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.samples >= 4, "at least 4 samples", self.samples)
        self._require(self.width > 0, "a width above 0", self.width)
        self._require(self.ridge >= 0, "a ridge of at least 0", self.ridge)

    def __call__(self, model: TextModel, windows: Sequence[Window], aim: Scalar) -> Maps:
        shown = [self._draws(window) for window in windows]
        found = self.responses(model, windows, shown, aim)
        values, stability, fits = [], [], []
        for window, keep, scores in zip(windows, shown, found, strict=True):
            slopes, explained = self._fit(keep, scores)
            values.append(self.spread(window, slopes))
            fits.append(explained)
            halves = [self._fit(keep[half::2], scores[half::2])[0] for half in (0, 1)]
            stability.append(rank_correlation(*halves))
        return Maps(values, {"stability": stability, "r2": fits})

    def cost(self, words: int) -> int:
        return self.samples

    def _draws(self, window: Window) -> Keep:
        """Draw the samples: (samples, parts) bool, whether a part is shown."""
        generator, count = seeded(self.seed, window), min(len(window), self.parts)
        hidden = generator.integers(1, count + 1, self.samples)
        rank = generator.random((self.samples, count)).argsort(1).argsort(1)
        keep: Keep = rank >= hidden[:, None]
        keep[0] = True
        return keep

    def _fit(self, keep: Keep, scores: NDArray[np.float64]) -> tuple[NDArray[Any], float]:
        """Fit the slopes (parts,), and return them with the share of variance explained."""
        z = keep.astype(np.float64)
        distance = 100 * (1 - np.sqrt(z.mean(1)))
        weight = np.sqrt(np.exp(-((distance / self.width) ** 2)))
        weight = weight / weight.sum()
        total = len(z) * weight  # so that the ridge weighs as much as it does for unit weights
        z0, y0 = weight @ z, weight @ scores
        zc, yc = z - z0, scores - y0
        left = (zc * total[:, None]).T @ zc + max(self.ridge, 1e-9) * np.eye(z.shape[1])
        slopes = np.linalg.solve(left, (zc * total[:, None]).T @ yc)
        spread = float(weight @ yc**2)
        rest = float(weight @ (yc - zc @ slopes) ** 2)
        return slopes, 1 - rest / spread if spread > 0 else float("nan")


def rank_correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    """Compute Spearman's correlation of two maps of at least three words; NaN for fewer."""
    if len(one) < 3:
        return float("nan")
    first, second = (np.argsort(np.argsort(v, kind="stable")) for v in (one, other))
    return float(np.corrcoef(first.astype(float), second.astype(float))[0, 1])
