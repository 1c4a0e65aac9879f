"""Kernel SHAP: Shapley values of superpixels, by the weighted linear fit that defines them.

    w = argmin_w  sum_z  k(z) ( f(x with z) - f(b) - w z )^2      with  sum w = f(x) - f(b)
    k(z) = (S - 1) / ( C(S, s) s (S - s) ),      s = |z| parts shown of S

z in {0, 1}^S says which parts of the image are shown, the others are painted. Where no more than
`samples` coalitions exist, all are taken with their weights, and the values are exact (S <= 9 with
the default). Otherwise sizes are drawn by their weight's total, members uniformly, each coalition
beside its complement, which halves the noise. Either way the fit is linear in the scores: one
matrix, made once for each number of parts, and the constraint holds exactly.

    visxai.Engine().explain("cat.jpg", method="kernel_shap(segments=50, samples=1000)")

`segments` is the approximate number of SLIC superpixels, or a grid (rows, columns). The map sums to
f(x) - f(b): a superpixel's value is spread evenly over its pixels; a grid gives a map of the
grid's size, a value a cell.

Cost: one forward of the image, one of the paint, and `samples` more, or on a grid fewer when there
are fewer coalitions.
Source: Lundberg & Lee, A unified approach to interpreting model predictions, NeurIPS 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import comb

import torch
from torch import Tensor

from visxai.methods._masked import Masked, grid_of, padded, parts_of, shown
from visxai.methods.base import Cost, Maps
from visxai.models.interface import Model
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class KernelShap(Masked):
    """Shapley values of parts of the image; see the module's docstring.

    Attributes:
        segments: Approximate number of superpixels, or a grid (rows, columns).
        samples: Number of coalitions.
        seed: Seed of the coalitions.
    """

    segments: int | tuple[int, int] = 50
    samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        pair = self.segments if isinstance(self.segments, tuple) else (self.segments, 1)
        self._require(min(pair) >= 1, "at least 1 segment", self.segments)
        least = min(2 * pair[0] * pair[1], 2 ** min(pair[0] * pair[1], 16))
        self._require(self.samples >= least, f"at least {least} samples", self.samples)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = self.clean(model, x, target)
        labels, counts = parts_of(x, self.segments)
        plans = {count: coalitions(count, self._turns(x), self.seed) for count in set(counts)}
        fits = {count: fit(*plan) for count, plan in plans.items()}
        # Turn 0 shows the paint alone.
        presence = [torch.nn.functional.pad(plans[count][0], (0, 0, 1, 0)) for count in counts]
        keep = shown(labels, padded(presence, x.device))
        responses = self.responses(model, x, aim, 1 + self._turns(x), keep)
        change = torch.cat([responses[:, 1:], clean.to(responses).unsqueeze(1)], 1)
        change = (change - responses[:, :1]).unsqueeze(2)
        matrices = padded([fits[count] for count in counts], x.device)
        values = (matrices[aim.rows] @ change.to(matrices)).squeeze(2)
        grid = grid_of(x, self.segments)
        if grid is not None:
            return Maps(values.reshape(-1, *grid))
        flat = labels[aim.rows].flatten(1)
        sizes = torch.zeros_like(values).scatter_add_(1, flat, torch.ones_like(flat).to(values))
        pixels = (values / sizes.clamp_min(1)).gather(1, flat)
        return Maps(pixels.reshape(-1, *x.shape[2:]))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(2 + self._turns(x))

    def _turns(self, x: Tensor) -> int:
        """Count the coalitions for inputs like x; on a grid, at most as many as exist."""
        grid = grid_of(x, self.segments)
        return self.samples if grid is None else min(self.samples, 2 ** (grid[0] * grid[1]) - 2)


def coalitions(count: int, turns: int, seed: int) -> tuple[Tensor, Tensor]:
    """Enumerate the coalitions of `count` parts where they fit in `turns`; otherwise draw pairs.

    Args:
        count: The number of parts.
        turns: The number of coalitions to return. Where fewer exist, the empty coalition fills the
            rest with weight zero.
        seed: The seed of the draws.

    Returns:
        Coalitions (turns, count) of 0 and 1, and their weights (turns,), float64.
    """
    if 2**count - 2 <= turns:
        number = torch.arange(1, 2**count - 1).unsqueeze(1)
        every = (number >> torch.arange(count) & 1).double()
        sizes = every.sum(1).long().tolist()
        weights = [(count - 1) / (comb(count, s) * s * (count - s)) for s in sizes]
        spare = turns - len(sizes)
        return (
            torch.nn.functional.pad(every, (0, 0, 0, spare)),
            torch.tensor([*weights, *[0.0] * spare], dtype=torch.float64),
        )
    generator = torch.Generator().manual_seed(seed)
    sizes_of = torch.arange(1, count, dtype=torch.float64)
    chance = 1 / (sizes_of * (count - sizes_of))
    half = -(-turns // 2)
    sizes_drawn = 1 + torch.multinomial(chance, half, replacement=True, generator=generator)
    rank = torch.rand(half, count, generator=generator).argsort(1).argsort(1)
    drawn = (rank < sizes_drawn.unsqueeze(1)).double()
    paired = torch.stack([drawn, 1 - drawn], 1).flatten(0, 1)[:turns]
    return paired, torch.ones(turns, dtype=torch.float64)


def fit(presence: Tensor, weights: Tensor) -> Tensor:
    """Build the matrix that maps scores of coalitions to Shapley values.

    Least squares under sum w = D:  w = G v + u (D - 1' G v),  G = A^-1 Z'W,  A = Z'WZ,
    u = A^-1 1 / (1' A^-1 1).

    Args:
        presence: Coalitions Z (turns, count) of 0 and 1.
        weights: Their weights (turns,), the diagonal of W.

    Returns:
        (count, turns + 1), to be applied to [ v(z) = f(x with z) - f(b), D = f(x) - f(b) ].
    """
    count = presence.shape[1]
    if count == 1:
        return torch.nn.functional.pad(presence.new_ones(1, 1), (len(presence), 0))
    weighted = presence.T * weights
    inverse = torch.linalg.pinv(weighted @ presence, hermitian=True)
    free = inverse @ weighted
    share = inverse.sum(1, keepdim=True) / inverse.sum()
    return torch.cat([free - share * free.sum(0), share], 1)
