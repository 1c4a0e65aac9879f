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

from torch import Tensor

from visxai.methods._rectified import Clipped, deconvolved


@dataclass(frozen=True, repr=False)
class Deconvolution(Clipped):
    """The rectified gradient; see the module's docstring."""

    @staticmethod
    def rule(given: Tensor, output: Tensor) -> Tensor:
        return deconvolved(given, output)
