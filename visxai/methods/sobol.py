"""Sobol: the share of the score's variance in which a cell of the image has a part.

    M_i = 1 / (2 n) * sum_a ( f(A_a) - f(A_a with column i from B) )^2 / Var(f)

The total Sobol index of cell i, by Jansen's estimator: A and B are n = `samples` rows of a
scrambled Sobol sequence in twice as many dimensions as there are cells, each value the degree to
which a cell shows through the paint. Unlike single drops, it includes every interaction of the
cell with others. Var(f) is taken over A and B together. The sequence is drawn from `seed` and is
the same for every image.

    visxai.Engine().explain("cat.jpg", method="sobol(samples=32, grid=8)")

The map is (grid, grid) and never negative: it says that a cell matters, not for or against.

Cost: one forward, and samples * (grid * grid + 2) more: 2113 with the defaults.
Source: Fel et al., Look at the variance! Efficient black-box explanations with Sobol-based
sensitivity analysis, NeurIPS 2021.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.quasirandom import SobolEngine

from visxai.methods._masked import Masked, cells, shown
from visxai.methods.base import Cost, Maps
from visxai.models.interface import Model
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class Sobol(Masked):
    """Total Sobol index of each cell; see the module's docstring.

    Attributes:
        output: 'probability' or 'logit': what the target is evaluated at.
        samples: Rows of each of the matrices A and B.
        grid: Cells a side.
        seed: Seed of the sequence.
    """

    output: Literal["logit", "probability"] = "probability"
    samples: int = 32
    grid: int = 8
    seed: int = 0

    @property
    def two_sided(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        most = int((SobolEngine.MAXDIM / 2) ** 0.5)
        self._require(1 <= self.grid <= most, f"a grid of 1 to {most} cells a side", self.grid)
        self._require(self.samples >= 2, "at least 2 samples", self.samples)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, _ = self.clean(model, x, target)
        labels = cells(tuple(x.shape[2:]), (self.grid, self.grid)).to(x.device)
        masks = design(self.samples, self.grid**2, self.seed).to(x.device)
        scores = self.responses(model, x, aim, len(masks), shown(labels, masks.unsqueeze(0)))
        indices = total_indices(scores, self.samples)
        return Maps(indices.reshape(-1, self.grid, self.grid))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(1 + self.samples * (self.grid**2 + 2))


def design(samples: int, count: int, seed: int) -> Tensor:
    """Draw the masks (samples * (count + 2), count) in 0..1 for `count` factors.

    The rows are A, B, and A with each column in turn replaced by B's.
    """
    engine = SobolEngine(2 * count, scramble=True, seed=seed)  # type: ignore[no-untyped-call]
    drawn = engine.draw(samples, dtype=torch.float32)
    a, b = drawn[:, :count], drawn[:, count:]
    mixed = a.expand(count, *a.shape).clone()
    column = torch.arange(count)
    mixed[column, :, column] = b.T
    return torch.cat([a, b, mixed.flatten(0, 1)])


def total_indices(scores: Tensor, samples: int) -> Tensor:
    """Estimate the total Sobol indices (r, count) from the scores (r, n) at a `design`."""
    first, _, *_ = blocks = scores.reshape(len(scores), -1, samples).unbind(1)
    changed = torch.stack(blocks[2:], 1)
    variance = torch.cat(blocks[:2], 1).var(1).clamp_min(1e-30)
    return (changed - first.unsqueeze(1)).square().mean(2) / (2 * variance.unsqueeze(1))
