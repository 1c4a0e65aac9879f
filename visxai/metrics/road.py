"""ROAD: remove pixels so that their absence can't be seen, and debias deletion.

    value = (LeRF - MoRF) / 2,    each = area under  p(x without a share of its pixels),  10 to 90 %

MoRF takes the most relevant pixels first, LeRF the least. Removed pixels are imputed: each is the
weighted mean of its 8 neighbours, 1/6 for the four that share an edge, 1/12 for the others
(weights beyond the border are left out and the rest raised), plus a normal of σ `noise` in model
space, drawn from `seed` and the same for all images. p is the class's probability; the paper uses
the accuracy. Figures beside the value: `morf` and `lerf`, with their curves.

    metrics.load("road")

The means of all removed pixels of an image and share form one linear system. It is symmetric and
positive, so it is solved by conjugate gradients for a whole block of rows at once, on the device,
from a start interpolated through a pyramid and with corrections at all scales: some 40 to 80 steps
at 224x224. Each row stops alone, when its residual is 1e-4 of the norm of the system's right-hand
side or after 200 steps, so no row depends on another; the error is a tenth of the noise.

Cost: 18 forwards a map, and as many solves.
Source: Rong et al., A consistent and efficient evaluation strategy for attribution methods, ICML
2022.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.metrics.base import Case, Metric, Scores, area
from visxai.models.interface import Need
from visxai.models.rows import Rows
from visxai.target import Aim

SHARES = tuple(share / 10 for share in range(1, 10))
EDGE, CORNER = 1 / 6, 1 / 12
TOLERANCE, STEPS = 1e-4, 200


@dataclass(frozen=True, repr=False)
class Road(Metric):
    """Remove and debias; see the module's docstring.

    Attributes:
        noise: Standard deviation of the noise on imputed pixels, in model space.
        seed: Seed of the noise.
    """

    noise: float = 0.01
    seed: int = 0

    needs = Need.SCORES
    better = "higher"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.noise >= 0, "noise of at least 0", self.noise)

    def forwards(self) -> int:
        return 2 * len(SHARES)

    def score(self, case: Case) -> Scores:
        x, aim = case.x, case.certainty
        generator = torch.Generator().manual_seed(self.seed)
        noise = self.noise * torch.randn(x.shape[1:], generator=generator).to(x)
        total = x.shape[2] * x.shape[3]
        counts = torch.tensor([round(share * total) for share in SHARES]).to(x.device)
        axis = torch.tensor(SHARES, device=x.device)
        curves = {
            "morf": self._curve(case, aim, case.ranks, counts, noise),
            "lerf": self._curve(case, aim, total - 1 - case.ranks, counts, noise),
        }
        figures = {name: area(curve, axis) for name, curve in curves.items()}
        return Scores((figures["lerf"] - figures["morf"]) / 2, figures, curves, axis)

    def _curve(self, case: Case, aim: Aim, ranks: Tensor, counts: Tensor, noise: Tensor) -> Tensor:
        """Evaluate `aim` (r, shares) as the first pixels of the ranks (r, h, w) are imputed."""
        x = case.x

        def build(ranking: Tensor, turn: Tensor) -> Tensor:
            removed = (ranks[ranking] < counts[turn][:, None, None]).unsqueeze(1)
            filled = imputed(x[aim.rows[ranking]], removed)
            return torch.where(removed, filled + noise, filled)

        return case.probe.values(Rows(len(aim), len(counts), tuple(x.shape[1:]), build), aim.each())


def imputed(x: Tensor, removed: Tensor) -> Tensor:
    """Impute the removed pixels of x from their neighbours, without noise.

    Args:
        x: Images (n, c, h, w).
        removed: The removed pixels (n, 1, h, w), bool.

    Returns:
        Images (n, c, h, w), in which the other pixels are those of x.
    """
    free = removed.to(x)
    degree = _neighbours(torch.ones_like(x[:1, :1]))
    known = x * (1 - free)
    # The system A u = b of the removed pixels: A u = degree u - (neighbours of u), and b is the
    # sum of the known neighbours.
    b = _neighbours(known) * free
    u = _pyramid(known, 1 - free) * free

    def apply(value: Tensor) -> Tensor:
        return (degree * value - _neighbours(value)) * free

    def dot(first: Tensor, second: Tensor) -> Tensor:
        return (first * second).sum((1, 2, 3), keepdim=True)

    residual = b - apply(u)
    correction = _scales(residual / degree, residual) * free
    direction, power = correction, dot(residual, correction)
    enough = TOLERANCE**2 * dot(b, b).clamp_min(1e-30)
    for _ in range(STEPS):
        going = dot(residual, residual) > enough
        if not going.any():
            break
        along = apply(direction)
        # A row that has converged takes no more steps.
        step = torch.where(going, power / dot(direction, along).clamp_min(1e-30), 0)
        u = u + step * direction
        residual = residual - step * along
        correction = _scales(residual / degree, residual) * free
        fresh = dot(residual, correction)
        direction = correction + fresh / power.clamp_min(1e-30) * direction
        power = fresh
    return known + u


def _scales(finest: Tensor, residual: Tensor) -> Tensor:
    """Add corrections constant over squares of 2, 4, 8, ... pixels to `finest`: the preconditioner.

    Each correction is the square's residual over about the energy of its outline, 2 * side: it
    spreads in one step what single pixels can only pass on step by step.
    """
    levels, side = [finest], 2
    while side < min(finest.shape[2:]):
        residual = F.avg_pool2d(residual, 2, ceil_mode=True, divisor_override=1)
        levels.append(residual / (2 * side))
        side *= 2
    total = levels.pop()
    for finer in reversed(levels):
        height, width = finer.shape[2:]
        spread = total.repeat_interleave(2, 2).repeat_interleave(2, 3)
        total = finer + spread[..., :height, :width]
    return total


def _neighbours(value: Tensor) -> Tensor:
    """Sum each pixel's 8 neighbours with their weights, zero beyond the border."""
    rows = F.pad(value, (1, 1, 1, 1))
    middle, above, below = rows[:, :, 1:-1], rows[:, :, :-2], rows[:, :, 2:]
    vertical = above + below
    edges = vertical[..., 1:-1] + middle[..., :-2] + middle[..., 2:]
    return EDGE * edges + CORNER * (vertical[..., :-2] + vertical[..., 2:])


def _pyramid(known: Tensor, weight: Tensor) -> Tensor:
    """Estimate the unknown pixels by means of the known ones at ever coarser scales.

    Args:
        known: Images (n, c, h, w), zero where the weight is zero.
        weight: (n, 1, h, w), 1 for known pixels and 0 for unknown ones.
    """
    mean = known / weight.clamp_min(1e-6)
    if min(known.shape[2:]) <= 2:
        total = weight.sum((2, 3), keepdim=True).clamp_min(1e-6)
        return torch.where(weight > 0, mean, (known.sum((2, 3), keepdim=True) / total))
    pooled = [F.avg_pool2d(value, 2, ceil_mode=True) for value in (known, weight)]
    coarse = _pyramid(*pooled)
    finer = F.interpolate(coarse, known.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(weight > 0, mean, finer)
