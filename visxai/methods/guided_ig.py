"""Guided integrated gradients: along a path that keeps out of steep places.

    M_p = sum over steps k, channels c of  (x_k+1 - x_k)_cp * ( g_cp(x_k) + g_cp(x_k+1) ) / 2

x_0 = b, x_steps = x, g is dy/dx. In step k the values with the smallest abs(g) move towards x,
until the path has covered k/steps of the distance sum abs(x - b); steep values wait, so that the
noise which a straight line picks up there is left out. Values move in groups: the `fraction` of
all with the smallest gradients together, then the next such group. No value may run ahead of the
straight line or lag behind it by more than `max_dist` of its way (1: no limit). A wide `max_dist`
makes the path hang on the last bits of the gradient: on a random ResNet-18 an image alone and in
a batch agreed to 1e-6 of the maximum at 0.02, and not at all at 0.1.

The path is the published one; the sum is its trapezoid rule, whose completeness error is smaller
than the left ends' (the rule of the authors' code), and costs one more gradient. The map sums to
y(x) - y(b) in the limit of many steps; the relative error is recorded.

    visxai.Engine().explain("cat.jpg", method="guided_ig(steps=50)")

The steps of a path follow each other, so only the images (and their classes) fill a batch.

Cost: 2 + steps forwards, 1 + steps backwards.
Source: Kapishnikov et al., Guided integrated gradients, CVPR 2021.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from visxai.methods._maps import baseline_like
from visxai.methods._path import gradient_sum
from visxai.methods.base import Cost, Maps, Method
from visxai.methods.integrated_gradients import incompleteness
from visxai.models.interface import Model, Need
from visxai.models.rows import Rows
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class GuidedIg(Method):
    """Integrated gradients on an adaptive path; see the module's docstring.

    Attributes:
        steps: Steps of the path.
        fraction: Share of all values that move together as a group, above 0 and at most 1.
        max_dist: How far a value may leave the straight line, as a share of its way, in 0..1.
        baseline: Start of the path in model space: a number, 'mean', 'blur' or a tensor.
    """

    steps: int = 50
    fraction: float = 0.25
    max_dist: float = 0.02
    baseline: float | str | Tensor = 0.0

    needs = Need.INPUT_GRADIENT

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.steps >= 1, "at least 1 step", self.steps)
        self._require(0 < self.fraction <= 1, "a fraction above 0, at most 1", self.fraction)
        self._require(0 <= self.max_dist <= 1, "a max_dist from 0 to 1", self.max_dist)

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        aim, clean = model.clean(x, target)
        start = baseline_like(x, self.baseline).expand_as(x)[aim.rows]
        way = x[aim.rows] - start
        each = aim.each()  # every map has its own path
        progress = torch.zeros_like(way)
        gradient, values = gradient_sum(model, Rows.of(start), each)
        maps = torch.zeros_like(gradient).sum(1)
        change = clean - values[:, 0]
        for step in range(1, self.steps + 1):
            moved = self.advance(progress, gradient.abs(), way.abs(), step / self.steps)
            following, _ = gradient_sum(model, Rows.of(start + moved * way), each)
            maps += ((moved - progress) * way * (gradient + following)).sum(1) / 2
            progress, gradient = moved, following
        return Maps(maps, {"completeness": incompleteness(maps, change)})

    def advance(self, progress: Tensor, steepness: Tensor, length: Tensor, goal: float) -> Tensor:
        """Move the values until each path has covered `goal` of its length.

        Args:
            progress: How far each value is on its way from the baseline, (r, c, h, w) in 0..1.
            steepness: Magnitude of the gradient (r, c, h, w); the smallest moves first.
            length: Length of each value's way (r, c, h, w).
            goal: Share of the path's length to cover, in 0..1.

        Returns:
            The new progress (r, c, h, w).
        """
        low, high = max(goal - self.max_dist, 0.0), min(goal + self.max_dist, 1.0)
        if goal == 1:
            return torch.ones_like(progress)
        progress = progress.clamp_min(low)
        room = (high - progress).clamp_min(0) * length
        need = ((goal - progress) * length).flatten(1).sum(1).clamp_min(0)
        order = steepness.masked_fill(room == 0, torch.inf).flatten(1).argsort(dim=1, stable=True)
        count = order.shape[1]
        size = math.ceil(self.fraction * count)
        sorted_room = F.pad(room.flatten(1).gather(1, order), (0, -count % size))
        groups = sorted_room.reshape(len(order), -(-count // size), size).sum(2)
        before = groups.cumsum(1) - groups
        # Whole groups move first; the group that reaches the distance moves a part of its way.
        share = ((need.unsqueeze(1) - before) / groups.clamp_min(1e-30)).clamp(0, 1)
        spread = share.repeat_interleave(size, 1)[:, :count]
        share = torch.empty_like(spread).scatter_(1, order, spread).reshape(progress.shape)
        return progress + share * (high - progress).clamp_min(0)

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=2 + self.steps, backwards=1 + self.steps)
