"""Faithfulness check: is this one map better than its own cells in any other order?

    value = insertion - deletion,    faithful = value > mean of the controls' values

A control is the map with the cells of a `grid` x `grid` partition permuted: it has the map's
values, its smoothness and its share of strong pixels, and only their places are wrong. For the
controls, a map whose sides `grid` doesn't divide is first resampled to the next larger sides that
it divides. The permutations are drawn once from `seed` and are the same for all maps.

    visxai.Engine().explain("cat.jpg", check="faithfulness")

Made for one image at a time, where no average over a data set helps: several controls, and both
directions, because one random map beats a good one too often on deletion alone. Figures beside
the value: `faithfulness_controls`, their mean, and `faithful`, whether the check is passed. A
flat map never passes.

Cost: 2 * (controls + 1) * (steps - 1) forwards a map, one an image and one a batch: 128 for
one image at the defaults.
Source: this project, from the curves of Petsiuk et al., RISE, BMVC 2018.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from visxai.methods._maps import upsample
from visxai.metrics._ranked import Stepwise, blurred, curves, zeros
from visxai.metrics.base import Case, Scores, area, ranked


@dataclass(frozen=True, repr=False)
class Faithfulness(Stepwise):
    """Insertion less deletion, against permuted maps; see the module's docstring.

    Attributes:
        steps: Steps of a curve.
        controls: Number of permuted maps.
        grid: Cells a side of a permutation.
        seed: Seed of the permutations.
    """

    steps: int = 8
    controls: int = 8
    grid: int = 7
    seed: int = 0

    better = "higher"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.controls >= 1, "at least 1 control", self.controls)
        self._require(self.grid >= 2, "a grid of at least 2 cells a side", self.grid)

    def forwards(self) -> int:
        return 2 * (self.controls + 1) * (self.steps - 1)

    def score(self, case: Case) -> Scores:
        maps, turns = len(case.aim), self.controls + 1
        ranks = self._ranks(case).flatten(0, 1)
        owner = torch.arange(maps, device=case.x.device).repeat_interleave(turns)
        axis = self.axis(case)
        values = torch.zeros(maps, turns, device=case.x.device)
        for substitute, flip, sign in ((blurred(case.x), True, 1), (zeros(case.x), False, -1)):
            curve = curves(case, owner, ranks, self.steps, (case.x, substitute), flip)
            values += sign * area(curve, axis).reshape(maps, turns)
        control = values[:, 1:].mean(1)
        # The permutations of a flat map equal the map; only rounding can make their ranks differ.
        low, high = case.native.flatten(1).aminmax(dim=1)
        flat = high - low <= 1e-6 * torch.maximum(low.abs(), high.abs())
        faithful = (values[:, 0] > control + 1e-6) & ~flat
        return Scores(values[:, 0], {"faithfulness_controls": control, "faithful": faithful})

    def _ranks(self, case: Case) -> Tensor:
        """Rank the pixels of each map and its controls: (maps, 1 + controls, h, w).

        The maps are taken in turn, since the values of all at once would be many times the batch.
        """
        size, orders = tuple(case.x.shape[2:]), self._orders()
        ranks = case.x.new_empty((len(case.aim), self.controls + 1, *size), dtype=torch.int32)
        for number, native in enumerate(case.native):
            controls = upsample(permuted(native.unsqueeze(0), self.grid, orders), size)
            ranks[number] = ranked(torch.cat([case.pixels[number : number + 1], controls]))
        return ranks

    def _orders(self) -> Tensor:
        """Draw permutations (controls, grid * grid): where each cell's content comes from."""
        generator = torch.Generator().manual_seed(self.seed)
        draws = (torch.randperm(self.grid**2, generator=generator) for _ in range(self.controls))
        return torch.stack(list(draws))


def permuted(maps: Tensor, grid: int, orders: Tensor) -> Tensor:
    """Permute the cells of maps.

    Args:
        maps: Maps (r, u, v).
        grid: Cells a side.
        orders: Permutations (k, grid * grid).

    Returns:
        Maps (r * k, u', v'), where u' and v' are the next sizes that `grid` divides.
    """
    down, across = (-(-side // grid) for side in maps.shape[1:])
    even = upsample(maps, (grid * down, grid * across))
    cells = even.reshape(-1, grid, down, grid, across).transpose(2, 3)
    cells = cells.reshape(len(maps), grid * grid, down, across)[:, orders.to(maps.device)]
    cells = cells.reshape(-1, grid, grid, down, across).transpose(2, 3)
    return cells.reshape(-1, grid * down, grid * across)
