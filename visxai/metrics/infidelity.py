"""Infidelity: does the map foretell how the score changes when the image is disturbed?

    value = E[ (s I.M - (y(x) - y(x - I)))^2 ],    s = E[I.M d] / E[(I.M)^2], at least 0

d is the change y(x) - y(x - I) of the target's scalar, a logit, I.M the change that the map
predicts, and s the scale that minimises the value: without it the metric would compare scales. A
map that predicts the opposite gets s = 0, the value of a zero map; `explained`, the figure beside
it, is 1 - value / E[d^2], 1 for a perfect prediction and 0 for a zero map.

`noise='gaussian'` draws I with σ = `size` in model space, for every pixel and channel; I.M is the
sum of I over channels times the map. `noise='square'` sets a square to zero in model space, its
side `size` of the shorter side of the image, at random places wholly inside; I.M is then the
map's sum over the square, since a map of evidence is a sum of contributions.

    metrics.load("infidelity(noise='square', size=0.2)")

All images share the `draws` from `seed`, held at once for the gaussian: draws * 3 * h * w floats.

Cost: `draws` forwards an image.
Source: Yeh et al., On the (in)fidelity and sensitivity of explanations, NeurIPS 2019.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from visxai.metrics.base import Case, Metric, Scores
from visxai.models.interface import Need
from visxai.models.rows import Rows


@dataclass(frozen=True, repr=False)
class Infidelity(Metric):
    """Squared error of the predicted change; see the module's docstring.

    Attributes:
        noise: 'gaussian' or 'square'.
        size: Standard deviation of the noise in model space, or the square's side as a share of the
            image's shorter side.
        draws: Number of disturbances.
        seed: Seed of the disturbances.
    """

    noise: Literal["gaussian", "square"] = "gaussian"
    size: float = 0.2
    draws: int = 64
    seed: int = 0

    needs = Need.SCORES
    better = "lower"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._require(self.noise in ("gaussian", "square"), "noise gaussian or square", self.noise)
        self._require(self.size > 0, "a size above 0", self.size)
        self._require(self.draws >= 2, "at least 2 draws", self.draws)

    def forwards(self) -> int:
        return self.draws

    def score(self, case: Case) -> Scores:
        x, aim = case.x, case.aim
        weights, disturb = (self._gaussian if self.noise == "gaussian" else self._squares)(x)
        rows = Rows(len(x), self.draws, tuple(x.shape[1:]), disturb)
        change = (case.clean(aim).unsqueeze(1) - case.probe.values(rows, aim)).double()
        # Squares of a small map's predictions underflow in float32.
        forecast = (case.pixels.flatten(1) @ weights.flatten(1).T).double()
        square = forecast.square().mean(1)
        scale = (forecast * change).mean(1).clamp_min(0) / square
        scale = torch.where(square > 0, scale, torch.zeros_like(scale))
        error = (scale.unsqueeze(1) * forecast - change).square().mean(1)
        power = change.square().mean(1)
        figures = {"explained": 1 - error / power, "scale": scale}
        return Scores(error.float(), {name: figure.float() for name, figure in figures.items()})

    def _gaussian(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """Draw normal noise.

        Returns:
            The weights of the map's pixels (draws, h, w), and a function that builds the disturbed
            inputs from indices of images and draws.
        """
        generator = torch.Generator().manual_seed(self.seed)
        drawn = torch.randn(self.draws, *x.shape[1:], generator=generator).mul_(self.size)
        noise = drawn.to(x)
        return noise.sum(1), lambda image, turn: x[image] - noise[turn]

    def _squares(self, x: Tensor) -> tuple[Tensor, Callable[[Tensor, Tensor], Tensor]]:
        """Draw squares, whose weights are 1 inside; returns the same as `_gaussian`."""
        generator = torch.Generator().manual_seed(self.seed)
        side = max(1, round(self.size * min(x.shape[2:])))
        covers = []
        for length in x.shape[2:]:
            first = torch.randint(max(1, length - side + 1), (self.draws, 1), generator=generator)
            at = torch.arange(length)
            covers.append(((at >= first) & (at < first + side)).to(x))
        squares = covers[0].unsqueeze(2) * covers[1].unsqueeze(1)
        return squares, lambda image, turn: x[image] * (1 - squares[turn].unsqueeze(1))
