"""Integrated gradients: the score's change along a straight path, shared out among the pixels.

    M = sum over channels of  (x - b) * integral over a in [0, 1] of  dy/dx ( b + a (x - b) )

The sum of the map is y(x) - y(b): completeness. Its relative error is recorded for every map, as
abs(sum M - dy) / max(abs(dy), 0.01). A small completeness error does not make an accurate map;
the number of steps does. Three ways to place them:

* schedule='probed' (default): eight forwards along the path show where the score moves, and the
  `steps` points are allotted to the eight intervals by the square root of its change in each,
  at least one each, at the midpoints of equal parts. Every image has its own points.
* schedule='gauss_legendre': `steps` fixed Gauss-Legendre points, as captum's default.
* tolerance=0.05: the fast tier. Trapezoids on 9, 17, 33, ... points up to `max_steps`; an image
  stops when two successive refinements have a completeness error below the tolerance and leaves
  the batch. One that never does is marked converged=false.

    visxai.Engine().explain("cat.jpg", method="integrated_gradients(steps=50)")

Cost: probed: 1 + 8 + steps forwards, steps backwards; gauss_legendre: 1 + 1 + steps forwards,
steps backwards; tolerance: 1 + n forwards, n backwards, n recorded as `evaluations`.
Source: Sundararajan et al., Axiomatic attribution for deep networks, ICML 2017.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from visxai.backends.base import Model, Need, Rows
from visxai.methods.base import Cost, Maps, Method, baseline_like
from visxai.target import Aim, Target

PROBES = 8
SMALLEST_CHANGE = 0.01  # completeness is relative to at least this change of the score
FIRST_INTERVALS = 8


@dataclass(frozen=True)
class Path:
    """A straight path for each of r maps: from baseline to x, both (r, c, h, w)."""

    x: Tensor
    baseline: Tensor
    aim: Aim  # one image a map

    def at(self, alphas: Tensor) -> Rows:
        """The points alphas (r, turns) of every path, as rows."""
        difference = self.x - self.baseline

        def build(image: Tensor, turn: Tensor) -> Tensor:
            a = alphas[image, turn].reshape(-1, 1, 1, 1)
            return self.baseline[image] + a * difference[image]

        return Rows(self.x.shape[0], alphas.shape[1], tuple(self.x.shape[1:]), build)

    def integral(self, model: Model, alphas: Tensor, weights: Tensor) -> Tensor:
        """sum over the points of weight * gradient, (r, c, h, w)."""
        total = torch.zeros_like(self.x)
        for block in model.gradients(self.at(alphas), self.aim):
            parts = weights[block.map, block.turn].reshape(-1, 1, 1, 1) * block.gradient
            # Map by map rather than index_add_, whose order on a GPU changes from run to run.
            for index in block.map.unique().tolist():
                total[index] += parts[block.map == index].sum(0)
        return total

    def part(self, keep: Tensor) -> Path:
        """The paths of the maps `keep` (n,) alone."""
        return Path(self.x[keep], self.baseline[keep], self.aim.each(keep))


@dataclass(frozen=True, repr=False)
class IntegratedGradients(Method):
    """Path-integrated gradients; see the module's docstring."""

    steps: int = 50
    schedule: Literal["probed", "gauss_legendre"] = "probed"
    baseline: float | str | Tensor = 0.0
    tolerance: float | None = None
    max_steps: int | None = None

    needs = Need.INPUT_GRADIENT

    def __post_init__(self) -> None:
        known = ("probed", "gauss_legendre")
        self._require(self.schedule in known, f"a schedule of {' or '.join(known)}", self.schedule)
        least = PROBES if self.schedule == "probed" else 1
        self._require(self.steps >= least, f"at least {least} steps", self.steps)
        if self.tolerance is None:
            self._require(self.max_steps is None, "max_steps only beside tolerance", self.max_steps)
        else:
            self._require(self.tolerance > 0, "a tolerance above 0", self.tolerance)
            object.__setattr__(self, "max_steps", self.max_steps or 256)
            self._require(
                (self.max_steps or 0) >= 2 * FIRST_INTERVALS,
                f"max_steps of at least {2 * FIRST_INTERVALS}",
                self.max_steps,
            )

    def __repr__(self) -> str:
        if self.tolerance is None:
            return super().__repr__()
        # The fast tier has neither a number of steps nor a schedule to name.
        return (
            f"{self.name()}(tolerance={self.tolerance!r}, max_steps={self.max_steps!r}, "
            f"baseline={self.baseline!r})"
        )

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = model.clean(x, target)
        baseline = baseline_like(x, self.baseline).expand_as(x)
        path = Path(x[aim.rows], baseline[aim.rows], aim.each())
        if self.tolerance is not None:
            return self._refined(model, path, clean)
        if self.schedule == "probed":
            probed = torch.arange(PROBES, device=x.device) / PROBES
            scores = model.values(path.at(probed.expand(len(aim), PROBES)), path.aim)
            scores = torch.cat([scores, clean.unsqueeze(1).to(scores)], 1)
            alphas, weights = allot(scores.diff(dim=1).abs().sqrt(), self.steps)
            start = scores[:, 0]
        else:
            nodes, node_weights = np.polynomial.legendre.leggauss(self.steps)
            alphas = x.new_tensor((nodes + 1) / 2).expand(len(aim), self.steps)
            weights = x.new_tensor(node_weights / 2).expand(len(aim), self.steps)
            start = model.values(path.at(x.new_zeros(len(aim), 1)), path.aim)[:, 0]
        maps = ((path.x - path.baseline) * path.integral(model, alphas, weights)).sum(1)
        evaluations = torch.full_like(clean, self.steps)
        return Maps(
            maps,
            {"completeness": incompleteness(maps, clean - start), "evaluations": evaluations},
        )

    def _refined(self, model: Model, path: Path, clean: Tensor) -> Maps:
        """The fast tier: trapezoids on doubled grids until each image is complete enough."""
        assert self.tolerance is not None
        assert self.max_steps is not None
        count = len(clean)
        start = model.values(path.at(clean.new_zeros(count, 1)), path.aim)[:, 0]
        change = clean - start
        maps = path.x.new_zeros((count, *path.x.shape[2:]))
        error = clean.new_zeros(count)
        evaluations = clean.new_zeros(count)
        passed = torch.zeros(count, dtype=torch.long, device=clean.device)
        open_maps = torch.arange(count, device=clean.device)
        intervals, points = FIRST_INTERVALS, torch.linspace(0, 1, FIRST_INTERVALS + 1)
        inner = torch.ones(FIRST_INTERVALS + 1)
        inner[0] = inner[-1] = 0.5
        total = torch.zeros_like(path.x)
        while len(open_maps):
            part = path.part(open_maps)
            shape = (len(open_maps), len(points))
            total[open_maps] += part.integral(
                model, points.to(path.x).expand(shape), inner.to(path.x).expand(shape)
            )
            found = ((part.x - part.baseline) * total[open_maps] / intervals).sum(1)
            maps[open_maps] = found
            error[open_maps] = incompleteness(found, change[open_maps])
            evaluations[open_maps] = intervals + 1.0
            good = error[open_maps] <= self.tolerance
            passed[open_maps] = torch.where(good, passed[open_maps] + 1, 0)
            open_maps = open_maps[passed[open_maps] < 2]
            if 2 * intervals > self.max_steps:
                break
            # The next grid's new points lie in the middles of this one's intervals.
            points = (torch.arange(intervals) + 0.5) / intervals
            inner = torch.ones(intervals)
            intervals *= 2
        return Maps(
            maps,
            {"completeness": error, "evaluations": evaluations, "converged": passed >= 2},
        )

    def cost(self, model: Model, x: Tensor) -> Cost:
        if self.tolerance is not None:
            most = FIRST_INTERVALS
            while 2 * most <= (self.max_steps or 0):
                most *= 2
            return Cost(forwards=2 + most + 1, backwards=most + 1)
        extra = PROBES if self.schedule == "probed" else 1
        return Cost(forwards=1 + extra + self.steps, backwards=self.steps)


def allot(importance: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Points and weights (r, steps) on [0, 1] for equal intervals of `importance` (r, n).

    Each interval gets one point and the rest by importance (largest remainders); its points are
    the midpoints of equal parts, so the weights of an interval sum to its length.
    """
    count = importance.shape[1]
    share = importance.double().cpu().numpy() + 1e-12
    ideal = share / share.sum(1, keepdims=True) * (steps - count)
    given = np.floor(ideal)
    remainder = (steps - count - given.sum(1)).astype(int)
    order = np.argsort(given - ideal, axis=1, kind="stable")
    for row, left in enumerate(remainder):
        given[row, order[row, :left]] += 1
    points = (given + 1).astype(int)
    alphas, weights = np.empty((len(points), steps)), np.empty((len(points), steps))
    for row, numbers in enumerate(points):
        part = np.repeat(1 / (count * numbers), numbers)
        first = np.repeat(np.cumsum(numbers) - numbers, numbers)
        within = np.arange(steps) - first
        alphas[row] = np.repeat(np.arange(count) / count, numbers) + (within + 0.5) * part
        weights[row] = part
    like = importance if importance.is_floating_point() else importance.float()
    return like.new_tensor(alphas), like.new_tensor(weights)


def incompleteness(maps: Tensor, change: Tensor) -> Tensor:
    """abs(sum of each map - change) / max(abs(change), 0.01), (r,)."""
    return (maps.sum((1, 2)) - change).abs() / change.abs().clamp_min(SMALLEST_CHANGE)
