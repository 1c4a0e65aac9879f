"""Grid pointing game: in a grid of images, does the map point at the one it explains?

    value = sum_(p in the class's cell) max(M_p, 0) / sum_p max(M_p, 0)

Grids of `cells` x `cells` images of distinct classes are composed of the case's images, those the
model gives at least `sure`, and shown to the model at their full size; the class of one cell is
explained, each cell in turn. The images' predicted classes stand for their labels. Maps are
upsampled first; one whose positive values sum to no more than 1e-7 counts 0. Chance is
1 / cells^2. There is one figure for each of the `grids`, drawn from `seed` whatever the order of
the images.

    metrics.load("grid_pointing(cells=2, grids=200)")

The model may well use one cell's pixels for another's class: see difull. A transformer's position
embedding is resampled to the larger input.

Cost: `grids` times the method on inputs cells^2 times as large, and one forward an image.
Source: Böhle et al., Convolutional dynamic alignment networks for interpretable classifications,
CVPR 2021.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from visxai.methods._maps import upsample
from visxai.metrics._grids import OverGrids, fitted
from visxai.metrics._inside import share_inside
from visxai.metrics.base import Case, Scores, explained
from visxai.models.interface import Need
from visxai.models.probe import Probe
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class GridPointing(OverGrids):
    """Share of positive evidence in the class's cell; see the module's docstring."""

    needs = Need.SCORES

    def score(self, case: Case) -> Scores:
        assert case.method is not None
        grids = self.arrange(case.probe, case.x)
        model = fitted(case.plain, case.x, self.cells)
        wanted, shares = grids.wanted.tolist(), []
        for start, stop in self.parts(model):
            x = grids.pixels(start, stop)
            maps = explained(case.method, Probe(model, x), x, Target.of(wanted[start:stop]))
            inside = grids.inside(start, stop)
            shares.append(share_inside(upsample(maps, tuple(x.shape[2:])), inside))
        return Scores(torch.cat(shares))
