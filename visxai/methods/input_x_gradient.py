"""Input times gradient: the score's first-order share of every pixel.

    M_p = sum over channels c of  x_cp * dy / dx_cp

x is in model space, so its zero is the mean colour of the training images. On a linear model the
map sums to y(x) minus the bias; it is integrated gradients with one point, at x.

    visxai.Engine().explain("cat.jpg", method="input_x_gradient")

Cost: one forward, one backward.
Source: Shrikumar et al., Not just a black box, 2016 (arXiv 1605.01713).
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class InputXGradient(Method):
    """The gradient at the input times the input; see the module's docstring."""

    needs = Need.INPUT_GRADIENT

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        at = model.at_input(x, target)
        return Maps((x[at.aim.rows] * at.gradient).sum(1))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1, backwards=1)
