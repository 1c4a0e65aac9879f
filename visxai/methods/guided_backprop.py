"""Guided backpropagation: the gradient, with what is negative left out at every rectifier.

    M_p = sum over channels c of  G_cp,    where at each activation function f(z)

    G_z = f'(z) relu( G_f )

With ReLUs f'(z) is 1 where z > 0 and 0 elsewhere, as published; SiLU, GELU and others pass by their
own derivative. `signed=False` takes the largest magnitude over channels.

The maps are sharp and look much the same for every class: it shows what the network sees more than
why it chose, and it passes no randomisation test (`visxai evaluate --metrics model_randomisation`).
Activation functions are changed where they are modules of the network; a network without any is
refused.

    visxai.Engine().explain("cat.jpg", method="guided_backprop")

Cost: two forwards (the class is settled on the first), one backward.
Source: Springenberg et al., Striving for simplicity: the all convolutional net, ICLR workshop 2015.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from visxai.methods._rectified import Clipped, guided


@dataclass(frozen=True, repr=False)
class GuidedBackprop(Clipped):
    """The gradient without negative parts; see the module's docstring."""

    @staticmethod
    def rule(given: Tensor, output: Tensor) -> Tensor:
        return guided(given, output)
