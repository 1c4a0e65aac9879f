"""HSIC: which cells of the image the score depends on, in whatever way.

    M_i = HSIC(m_i, y) = 1 / (n - 1)^2 * trace( K_i H L H ),      H = I - 1/n
    K_i[a, b] = 1 if m_ai = m_bi else 0,      L[a, b] = exp( -(y_a - y_b)^2 / (2 s^2) )

Row a of n = `samples` masks shows (m_ai = 1) or paints cell i; y_a is the target under it. The
Hilbert-Schmidt independence criterion is zero if and only if cell and score are independent, so
it also sees what a difference of means misses. Half of the masks show each cell (a Latin square,
one level a half). Both kernels are centred; with two levels K_i is 2 m m' up to terms that
centring removes, so all cells take one product:  M_i = 2 / (n - 1)^2 * c_i' L c_i,  c_i the
centred column of cell i. s is the standard deviation of y, which for normal y is the usual
median of differences and stays above zero when most masks give the same score.

    visxai.Engine().explain("cat.jpg", method="hsic(samples=500, grid=8)")

The map is (grid, grid) and never negative: it says that a cell matters, not for or against.

Cost: one forward, and `samples` more.
Source: Novello et al., Making sense of dependence: efficient black-box explanations using
dependence measure, NeurIPS 2022.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from visxai.methods._masked import Masked, cells, shown
from visxai.methods.base import Cost, Maps
from visxai.models.interface import Model
from visxai.target import Target

CHUNK = 16  # maps whose kernels (samples, samples) are held at once


@dataclass(frozen=True, repr=False)
class Hsic(Masked):
    """Dependence of the score on each cell; see the module's docstring.

    Attributes:
        output: 'probability' or 'logit': what the target is evaluated at.
        samples: Number of masks, even.
        grid: Cells a side.
        seed: Seed of the masks.
    """

    output: Literal["logit", "probability"] = "probability"
    samples: int = 500
    grid: int = 8
    seed: int = 0

    @property
    def two_sided(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(
            self.samples >= 2 and self.samples % 2 == 0, "an even number of samples", self.samples
        )
        self._require(self.grid >= 1, "a grid of at least 1 cell a side", self.grid)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, _ = self.clean(model, x, target)
        masks = self._masks().to(x.device)
        labels = cells(tuple(x.shape[2:]), (self.grid, self.grid)).to(x.device)
        scores = self.responses(model, x, aim, self.samples, shown(labels, masks.unsqueeze(0)))
        centred = masks - 0.5
        maps = torch.cat([dependence(centred, some) for some in torch.split(scores, CHUNK)])
        return Maps(maps.reshape(-1, self.grid, self.grid))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(1 + self.samples)

    def _masks(self) -> Tensor:
        """Draw masks (samples, cells) of 0 and 1, half of each in every column."""
        generator = torch.Generator().manual_seed(self.seed)
        order = torch.rand(self.grid**2, self.samples, generator=generator).argsort(1)
        return (order < self.samples // 2).float().T


def dependence(centred: Tensor, scores: Tensor) -> Tensor:
    """Compute the HSIC of every cell with the scores.

    Args:
        centred: Columns (samples, cells) that sum to zero.
        scores: Scores (r, samples).

    Returns:
        HSIC (r, cells), never negative.
    """
    count = scores.shape[1]
    variance = scores.var(1, correction=0).reshape(-1, 1, 1).clamp_min(1e-30)
    apart = (scores.unsqueeze(2) - scores.unsqueeze(1)).square()
    # The kernel less 1, which centring removes anyway: exact zeros for a constant score.
    kernel = torch.expm1(-apart / (2 * variance))
    return 2 * ((kernel @ centred) * centred).sum(1).clamp_min(0) / (count - 1) ** 2
