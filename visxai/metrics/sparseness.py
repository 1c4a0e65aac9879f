"""Sparseness: on how few pixels does the map concentrate?

    value = Gini(|M|) = sum_i (2 i - n - 1) a_i / (n sum_i a_i),    a_1 <= ... <= a_n sorted |M|

0 for a map that is the same everywhere, 1 - 1/n for a single pixel. The map is taken at pixel
resolution, so that coarse and fine maps can be compared; the Gini of a zero map isn't defined.

    metrics.load("sparseness")

It says nothing about truth: a random single pixel is as sparse as the right one.

Cost: none.
Source: Chalasani et al., Concise explanations of neural networks using adversarial training,
ICML 2020.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from visxai.metrics.base import Case, Metric, Scores


@dataclass(frozen=True, repr=False)
class Sparseness(Metric):
    """Gini index of the magnitudes; see the module's docstring."""

    better = "neither"

    def score(self, case: Case) -> Scores:
        magnitude = case.pixels.abs().flatten(1).sort(1).values
        count = magnitude.shape[1]
        peak = magnitude[:, -1:]
        scaled = magnitude / torch.where(peak > 0, peak, torch.nan)
        weights = 2 * torch.arange(1, count + 1, device=scaled.device) - count - 1
        # Divided before they are added: the undivided sums exceed the precision of float32.
        weighted = (scaled * (weights / count)).mean(1)
        return Scores(weighted / scaled.mean(1))
