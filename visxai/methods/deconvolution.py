"""Deconvolution: the gradient, with every rectifier run on the gradient instead of the signal.

    M_p = sum over channels c of  G_cp,    where at each activation function f(z)

    G_z = relu( G_f )

Unlike guided backpropagation it ignores where z was negative. `signed=False` takes the largest
magnitude over channels. It is here for comparisons: its maps hardly depend on the class or on what
the network has learnt. Activation functions are changed where they are modules of the network; a
network without any is refused.

    visxai.Engine().explain("cat.jpg", method="deconvolution")

Cost: two forwards (the class is settled on the first), one backward.
Source: Zeiler & Fergus, Visualizing and understanding convolutional networks, ECCV 2014.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from visxai.methods._rectified import clipped, deconvolved
from visxai.methods.base import Cost, Maps, Method
from visxai.models.interface import Model, Need
from visxai.target import Target


@dataclass(frozen=True, repr=False)
class Deconvolution(Method):
    """The rectified gradient; see the module's docstring.

    Attributes:
        signed: Whether to sum over channels, rather than take the largest magnitude.
    """

    signed: bool = True

    needs = Need.MODULE

    @property
    def two_sided(self) -> bool:
        return self.signed

    def __call__(self, model: Model, x: Tensor, target: Target) -> Maps:
        def run(network: nn.Module, inputs: Tensor, which: Tensor) -> Tensor:
            gradient = clipped(network, inputs, which, deconvolved, model.ref.name)
            return gradient.sum(1) if self.signed else gradient.abs().amax(1)

        return Maps(model.through(x, model.aim(x, target), run))

    def cost(self, model: Model, x: Tensor) -> Cost:
        return Cost(forwards=2, backwards=1)
