"""Saliency: how fast the score changes with each pixel.

    M_p = max over channels c of  abs( dy / dx_cp )

`signed=True` is the sum over channels of the gradient itself: positive where a brighter pixel
raises the score. On a linear model the gradient is the weights.

    visxai.Engine().explain("cat.jpg", method="saliency")

Cost: one forward, one backward.
Source: Simonyan et al., Deep inside convolutional networks, ICLR workshop 2014.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class Saliency(Method):
    """The gradient at the input; see the module's docstring.

    Attributes:
        signed: Whether to sum the gradient over channels, rather than take the largest magnitude.
    """

    signed: bool = False

    needs = Need.INPUT_GRADIENT

    @property
    def two_sided(self) -> bool:
        return self.signed

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        gradient = model.at_input(x, target).gradient
        return Maps(gradient.sum(1) if self.signed else gradient.abs().amax(1))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=1, backwards=1)
